"""MoCo v1 and v2: a query encoder whose ``fc`` is the head, and its momentum copy."""

from __future__ import annotations

from layerscope.models.contents import Contents
from layerscope.models.declared import Branch, Declared
from layerscope.models.families import Family, Parts, branch_of, register
from layerscope.models.heads import Operation, l2, linear, sequential
from layerscope.models.trunks import TrunkFacts, build_trunk

_ENCODERS: dict[Branch, str] = {"online": "encoder_q.", "momentum": "encoder_k."}


@register
class MoCo(Family):
    """The checkpoints of facebookresearch/moco."""

    name = "moco"
    title = "MoCo v1 and v2"
    layout = "state_dict: module.encoder_q., module.encoder_k., module.queue"
    source = "facebookresearch/moco moco/builder.py, main_moco.py"
    branches = ("online", "momentum")

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        if weights.has(r"encoder_q\.conv1\.weight$", r"encoder_q\.fc\.", r"queue$"):
            return "encoder_q beside a queue"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        prefix = _ENCODERS[branch_of(self, declared)]
        encoder = contents.state_dict.under(prefix)
        fc = encoder.only("fc.")
        if "fc.weight" in fc:
            head: tuple[Operation, ...] = (linear("fc"), l2())
        else:
            head = sequential(fc, "fc.", declared.head_act or "relu", last=[l2()])
        return Parts(
            trunk=build_trunk(encoder.without("fc."), TrunkFacts(stem="imagenet"), declared),
            tensors=fc,
            head=head,
            ignored={
                r".*\bencoder_[qk]\.": "the other branch's weights",
                r".*\bqueue(_ptr)?$": "negatives of the last batches",
            },
        )
