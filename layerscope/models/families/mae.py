"""MAE: an encoder with fixed position embeddings, usually beside its decoder."""

from __future__ import annotations

from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import Operation, linear, norm
from layerscope.models.preprocessing import IMAGENET_BICUBIC
from layerscope.models.trunks import TrunkFacts, build_trunk, vit
from layerscope.models.trunks.positions import bicubic, is_sine_cosine

_DECODER = ("decoder_", "mask_token")
_FACTS = TrunkFacts(attention_heads={768: 12, 1024: 16, 1280: 16}, resample=bicubic())
_PROBE_EPS = 1e-6


@register
class MAE(Family):
    """The checkpoints of facebookresearch/mae whose encoder is frozen or not yet fine-tuned."""

    name = "mae"
    title = "MAE"
    layout = "model: cls_token, pos_embed, blocks., decoder_blocks."
    source = "facebookresearch/mae models_mae.py, models_vit.py, main_linprobe.py"

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        if weights.has(r"blocks\.0\.", r"decoder_embed\.weight$", r"decoder_blocks\.0\."):
            return "a transformer beside decoder_embed and decoder_blocks"
        if vit.fits(weights.without("head.").shapes) and is_sine_cosine(
            weights.get("pos_embed"), rows_first=False
        ):
            return "a plain transformer whose position embedding is MAE's fixed table"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        probe = weights.only("head.")
        return Parts(
            trunk=build_trunk(weights.without("head.", *_DECODER), _FACTS, declared),
            tensors=probe,
            head=_probe(set(probe)),
            ignored={
                r".*\bdecoder_": "the decoder, which reads tokens, not the representation",
                r".*\bmask_token$": "stands for the masked patches",
            },
            preprocessing=IMAGENET_BICUBIC,
            notes=(
                "MAE has no projector: its decoder is no layer behind the representation, so the "
                "cuts end with the trunk.",
                "No loss reads MAE's class token; compare the pooling mean.",
            ),
        )


def _probe(names: set[str]) -> tuple[Operation, ...]:
    if "head.1.weight" in names:
        return (norm("head.0", eps=_PROBE_EPS), linear("head.1"))
    return (linear("head"),) if names else ()
