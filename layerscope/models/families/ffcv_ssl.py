"""FFCV-SSL: a ``net``, a ``projector`` of numbered blocks, and what its losses add to them."""

from __future__ import annotations

from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Activation, Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import Operation, act, linear, norm
from layerscope.models.trunks import TrunkFacts, build_trunk

_TABLES = ("net.", "projector.", "predictor.", "fc.", "bn.")
_PARAMETERS, _LOSS = "params.json", "training.loss"


@register
class FFCVSSL(Family):
    """The checkpoints of facebookresearch/FFCV-SSL: ``model.pth`` and ``final_weights.pt``.

    Its validation crops the middle 224/256 of an image's shorter side and then resizes that to 224
    (train_ssl.py, create_val_loader): the same view as torchvision's, resampled by another code.
    """

    name = "ffcv-ssl"
    title = "FFCV-SSL"
    layout = "model: module.net., module.projector.0.0, probes"
    source = "facebookresearch/FFCV-SSL examples/train_ssl.py"

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        if not weights.has(r"net\.(conv1|features\.0)\.weight$") or weights.without(*_TABLES):
            return ""
        if weights.has(r"projector\.0\.(0\.)?weight$"):
            return "net beside a projector of numbered blocks"
        return "" if weights.has("projector") else "net, its projector removed"

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        activation = declared.head_act or "relu"
        head = _mlp(weights, "projector.", activation)
        notes = []
        if weights.has(r"net\.fc\."):
            head = (linear("net.fc"), *head)
            notes.append("head.1 is the Linear at the end of net (model.fc), not the projector's.")
        loss = contents.beside.get(_PARAMETERS, {}).get(_LOSS)
        return Parts(
            trunk=build_trunk(weights.under("net.").without("fc."), TrunkFacts(), declared),
            tensors=weights.only("net.fc.", "projector.", "predictor.", "fc."),
            head=head,
            predictor=_mlp(weights, "predictor.", activation),
            logits={"Q": (linear("fc"),)} if weights.has(r"fc\.") else {},
            ignored={
                r"probes/": "FFCV-SSL's own online probes; LayerScope trains its own",
                r"(.*[/.])?bn\.": "affine-free BatchNorm of the Barlow Twins loss",
            },
            notes=notes,
            architecture={"loss": loss} if isinstance(loss, str) else {},
        )


def _mlp(weights: Weights, prefix: str, activation: Activation) -> tuple[Operation, ...]:
    """Return the operations of numbered blocks.

    A block is a Sequential of Linear, BatchNorm and activation; the last one is a bare Linear, or
    (``model.proj_relu``) a Sequential of Linear and activation.
    """
    below = weights.under(prefix)
    steps: list[Operation] = []
    for number in below.numbers():
        if f"{number}.weight" in below:
            steps.append(linear(f"{prefix}{number}"))
            continue
        steps.append(linear(f"{prefix}{number}.0"))
        if below.has(rf"{number}\.1\."):
            steps.append(norm(f"{prefix}{number}.1"))
        steps.append(act(activation))
    return tuple(steps)
