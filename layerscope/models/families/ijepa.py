"""I-JEPA: an encoder and its target, transformers without class token and without head."""

from __future__ import annotations

from layerscope.models.contents import Contents, unwrapped
from layerscope.models.declared import Branch, Declared
from layerscope.models.families import Family, Parts, branch_of, register, require_weights
from layerscope.models.trunks import TrunkFacts, build_trunk

_TABLES: dict[Branch, str] = {"momentum": "target_encoder", "online": "encoder"}
_FACTS = TrunkFacts(attention_heads={192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16})


@register
class IJEPA(Family):
    """The checkpoints of facebookresearch/ijepa."""

    name = "ijepa"
    title = "I-JEPA"
    layout = "encoder, target_encoder: module.blocks.; predictor: module.predictor_blocks."
    source = "facebookresearch/ijepa src/train.py, src/models/vision_transformer.py"
    branches = ("momentum", "online")

    def recognise(self, contents: Contents) -> str:
        if not {"predictor", "target_encoder"} <= contents.names():
            return ""
        target = unwrapped(contents.table("target_encoder"))
        predictor = unwrapped(contents.table("predictor"))
        if (
            target.has(r"pos_embed$", r"blocks\.0\.")
            and "cls_token" not in target
            and predictor.has(r"predictor_blocks\.0\.")
        ):
            return "a target_encoder without class token beside predictor_blocks"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        branch = branch_of(self, declared)
        encoder = require_weights(unwrapped(contents.table(_TABLES[branch])), branch)
        other = _TABLES["online" if branch == "momentum" else "momentum"]
        return Parts(
            trunk=build_trunk(encoder, _FACTS, declared),
            ignored={
                rf"{other}/": f"the weights of {other}",
                "predictor/": "predicts masked patches from patches, not from the representation",
            },
            notes=(
                "I-JEPA has no class token: the representation is the mean of the patches.",
                "I-JEPA has no projector, so the cuts end with the trunk.",
            ),
        )
