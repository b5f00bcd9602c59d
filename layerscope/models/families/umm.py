"""UMM: methods around a ResNet called ``back_bone``, some with a momentum copy of it."""

from __future__ import annotations

from dataclasses import replace

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Activation, Branch, Declared
from layerscope.models.families import Family, Parts, branch_of, register
from layerscope.models.heads import Operation, l2, linear, sequential
from layerscope.models.preprocessing import IMAGENET_BICUBIC
from layerscope.models.trunks import TrunkFacts, build_trunk
from layerscope.types import Preprocessing

_TRUNKS: dict[Branch, str] = {"online": "back_bone.", "momentum": "target."}
_HEADS: dict[Branch, str] = {"online": "head", "momentum": "head_target"}
_PREPROCESSING: dict[str, Preprocessing] = {
    "imagenet": IMAGENET_BICUBIC,
    "cifar": replace(
        IMAGENET_BICUBIC,
        resize=40,
        crop=32,
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
    ),
    "stl10": replace(
        IMAGENET_BICUBIC, resize=70, crop=64, mean=(0.43, 0.42, 0.39), std=(0.27, 0.26, 0.27)
    ),
}
_TINY = (
    "The channel statistics are STL-10's; a run on Tiny ImageNet used others, which a card can "
    "state."
)


@register
class UMM(Family):
    """The checkpoints of ZeenSong/UMM: SimCLR, MoCo, BYOL, SimSiam, SwAV, VICReg and more."""

    name = "umm"
    title = "UMM"
    layout = "back_bone., head.; perhaps target., head_target., predictor., prototypes"
    source = "ZeenSong/UMM models.py, pretrain.py, dataset.py"
    branches = ("online", "momentum")

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        return "a ResNet called back_bone" if weights.has(r"back_bone\.conv1\.weight$") else ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        branch = branch_of(self, declared)
        weights = contents.state_dict
        network = weights.under(_TRUNKS[branch])
        if not network:
            raise CheckpointError(
                "The file's method has no momentum copy: it holds no target.",
                hint="Declare no branch.",
            )
        trunk = build_trunk(network, TrunkFacts(), declared)
        stem = str(trunk.details.get("stem", "imagenet"))
        head, online = _HEADS[branch], branch == "online"
        act: Activation = declared.head_act or "relu"
        prototypes = weights.only("prototypes.") if online else Weights()
        predictor = weights.only("predictor.") if online else Weights()
        return Parts(
            trunk=trunk,
            tensors=weights.only(f"{head}.").joined(predictor).joined(prototypes),
            head=_layers(weights, head, act, normalised=_normalises(weights)),
            predictor=_layers(weights, "predictor", act) if predictor else (),
            logits={"Q": (linear("prototypes"),)} if prototypes else {},
            ignored={
                r"(.*/)?(target|head_target|back_bone|head|predictor|prototypes)\.": (
                    "the other branch's weights"
                ),
                r"(.*/)?f_el?\.": "the trunk's weights a second time",
            },
            preprocessing=_PREPROCESSING[stem],
            notes=(_TINY,) if stem == "stl10" else (),
        )


def _normalises(weights: Weights) -> bool:
    # Of the methods, SwAV (prototypes) and MoCo (a target without predictor) put an L2 norm
    # behind the head in the network itself; the others leave it to their losses.
    moco = weights.has(r"head_target\.") and not weights.has(r"predictor\.")
    return moco or weights.has(r"prototypes\.")


def _layers(
    weights: Weights, name: str, act: Activation, *, normalised: bool = False
) -> tuple[Operation, ...]:
    last = (l2(),) if normalised else ()
    if f"{name}.weight" in weights:
        return (linear(name), *last)
    return sequential(weights, f"{name}.", act, last=last) if weights.only(f"{name}.") else ()
