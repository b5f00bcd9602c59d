"""BYOL by lucidrains/byol-pytorch: a wrapped network whose pooled features feed a projector."""

from __future__ import annotations

from collections.abc import Sequence

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights, unwrapped
from layerscope.models.declared import Activation, Branch, Declared
from layerscope.models.families import Family, Parts, branch_of, register, require_weights
from layerscope.models.heads import Operation, linear, norm, sequential
from layerscope.models.trunks import TrunkFacts, build_trunk, resnet

_ENCODERS: dict[Branch, str] = {"online": "online_encoder.", "momentum": "target_encoder."}
_SIMPLICIAL = "projector.0.0.weight"


@register
class BYOLLucidrains(Family):
    """The state dicts of lucidrains/byol-pytorch's ``BYOL`` around a torchvision ResNet."""

    name = "byol-lucidrains"
    title = "BYOL (lucidrains)"
    layout = "[learner.]net., online_encoder.net., online_encoder.projector., target_encoder."
    source = "lucidrains/byol-pytorch byol_pytorch/byol_pytorch.py, examples/lightning"
    branches = ("online", "momentum")

    def recognise(self, contents: Contents) -> str:
        if _weights(contents).has(
            r"online_encoder\.net\.", r"online_encoder\.projector\.", r"online_predictor\."
        ):
            return "online_encoder with net and projector beside an online_predictor"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        branch = branch_of(self, declared)
        weights = _weights(contents)
        encoder = require_weights(weights.under(_ENCODERS[branch]), branch)
        simplicial = _SIMPLICIAL in encoder
        classifier, head = _head(encoder, declared.head_act or "relu")
        behind = encoder.only("projector.", *(["net.fc."] if classifier else []))
        predictor: Sequence[Operation] = ()
        if simplicial:
            behind = behind.only("projector.0.")
        elif branch == "online":
            behind = behind.joined(weights.only("online_predictor."))
            predictor = _mlp(behind, "online_predictor.", declared.head_act or "relu")
        return Parts(
            trunk=build_trunk(_network(encoder), TrunkFacts(), declared),
            tensors=behind,
            head=head,
            predictor=predictor,
            ignored=_IGNORED_BEHIND_SIMPLICES | _IGNORED if simplicial else _IGNORED,
            notes=(_NOTE,) if simplicial else (),
        )


_IGNORED = {
    r".*\b(online|target)_encoder\.net\.fc\.": "torchvision's classifier, which the method skips",
    r".*\b(online|target)_(encoder|predictor)\.": "the other branch's weights",
    r"(.*\.)?(state_dict/)?(module\.|_orig_mod\.|model\.)*(learner\.)?net\.": (
        "the same tensors a second time"
    ),
}
_IGNORED_BEHIND_SIMPLICES = {
    r".*\b(online_encoder\.projector\.2|online_predictor)\.": (
        "reads simplices whose temperature the file does not hold"
    ),
}
_NOTE = (
    "The head ends before its simplicial embedding: neither the temperature nor the size of the "
    "simplices is in the file."
)


def _weights(contents: Contents) -> Weights:
    return unwrapped(contents.state_dict, ("learner.",))


def _network(encoder: Weights) -> Weights:
    network = encoder.under("net.").without("fc.")
    if not resnet.fits(network.shapes):
        raise CheckpointError(
            f"The wrapped network is no ResNet of torchvision: {', '.join(list(network)[:3])}, ….",
            hint="Which of its layers feeds the projector is not in the file; describe it with "
            "--declare arch=package.module:factory.",
        )
    return network


def _head(encoder: Weights, activation: Activation) -> tuple[bool, Sequence[Operation]]:
    """Return whether the head begins with the network's own classifier, and its operations."""
    if _SIMPLICIAL in encoder:
        projector: Sequence[Operation] = (linear("projector.0.0"), norm("projector.0.1"))
        inputs = encoder.shapes[_SIMPLICIAL][1]
    else:
        projector = _mlp(encoder, "projector.", activation)
        inputs = encoder.shapes[f"{projector[0].key}.weight"][1]
    outputs, features = encoder.shapes.get("net.fc.weight", (0, 0))
    if inputs == outputs == features:
        raise CheckpointError(
            f"The network's fc maps {features} features to as many, so the file does not tell "
            "whether the projector reads what is before or behind it.",
            hint="Describe the network with --declare arch=package.module:factory.",
        )
    if inputs == outputs:
        return True, (linear("net.fc"), *projector)
    return False, projector


def _mlp(tensors: Weights, prefix: str, activation: Activation) -> Sequence[Operation]:
    inner = f"{prefix}net." if f"{prefix}net.0.weight" in tensors else prefix
    return sequential(tensors, inner, activation)
