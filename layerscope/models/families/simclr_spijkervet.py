"""SimCLR by Spijkervet: an encoder and a projector of two Linears without biases."""

from __future__ import annotations

from dataclasses import replace

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import sequential
from layerscope.models.preprocessing import UNNORMALISED
from layerscope.models.trunks import TrunkFacts, build_trunk

_LIGHTNING = "model."
_HEAD = {"projector.0.weight", "projector.2.weight"}


@register
class SimCLRSpijkervet(Family):
    """The checkpoints of Spijkervet/SimCLR."""

    name = "simclr-spijkervet"
    title = "SimCLR (Spijkervet)"
    layout = "encoder., projector.0, projector.2, without biases"
    source = "Spijkervet/SimCLR simclr/simclr.py, model.py, main_pl.py"

    def recognise(self, contents: Contents) -> str:
        weights = _network(contents)
        head = weights.without("encoder.")
        if weights.has(r"encoder\.conv1\.weight$") and set(head) == _HEAD:
            return "encoder beside projector.0 and projector.2 without biases"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = _network(contents)
        head = weights.only("projector.")
        return Parts(
            trunk=build_trunk(weights.under("encoder."), TrunkFacts(stem="imagenet"), declared),
            tensors=head,
            head=sequential(head, "projector.", declared.head_act or "relu"),
            ignored={r"state_dict/encoder\.": "the encoder a second time"},
            preprocessing=replace(UNNORMALISED, resize=224),
        )


def _network(contents: Contents) -> Weights:
    # Under Lightning the encoder is registered twice: by itself and in the model.
    weights = contents.state_dict
    if weights.without("encoder.", _LIGHTNING):
        return weights
    return weights.under(_LIGHTNING) or weights
