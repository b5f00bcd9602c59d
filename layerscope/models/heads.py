"""Heads (projectors) as ordered operations, grouped into layers: each a cut point of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from layerscope.errors import CheckpointError
from layerscope.models.contents import Weights
from layerscope.models.declared import Activation

OperationKind = Literal["linear", "weight_normed", "matrix", "norm", "layer_norm", "act", "l2"]

_AFFINE = ("linear", "weight_normed", "matrix")


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a head; made by :func:`linear`, :func:`norm` and their like."""

    kind: OperationKind
    key: str = ""
    """What the names of its tensors begin with, without the last dot."""
    act: Activation = "none"
    eps: float = 1e-5


def linear(key: str) -> Operation:
    """Return a Linear layer, with or without bias as its tensors say."""
    return Operation("linear", key)


def weight_normed(key: str) -> Operation:
    """Return a bias-free Linear whose weight is ``g · v / ‖v‖`` by rows (DINO's last layer)."""
    return Operation("weight_normed", key)


def matrix(key: str) -> Operation:
    """Return a product ``x @ M`` with a matrix (inputs, outputs) whose whole name is the key."""
    return Operation("matrix", key)


def norm(key: str, eps: float = 1e-5) -> Operation:
    """Return a BatchNorm, with or without weight, bias and statistics as its tensors say."""
    return Operation("norm", key, eps=eps)


def layer_norm(key: str, eps: float = 1e-5) -> Operation:
    """Return a LayerNorm."""
    return Operation("layer_norm", key, eps=eps)


def act(name: Activation) -> Operation:
    """Return an activation; ``none`` is no operation at all."""
    return Operation("act", act=name)


def l2() -> Operation:
    """Return the division by the Euclidean norm: no layer, but offered as ``head.3n``."""
    return Operation("l2")


def sequential(
    tensors: Weights, prefix: str, activation: Activation | None, *, last: Sequence[Operation] = ()
) -> tuple[Operation, ...]:
    """Return the operations of an ``nn.Sequential``, told from indices, shapes and gaps.

    An index without tensors between two Linears is the activation. Which one, no file says: it is
    the family's, or has to be declared.

    Args:
        tensors: With names such as ``fc.0.weight``.
        prefix: What the Sequential's names begin with, the last dot included: ``fc.``.
        activation: The family's, or the user's; None when nobody knows it.
        last: What follows the last layer and leaves no trace, such as an L2 norm.

    Raises:
        CheckpointError: The activation is unknown, or there is a gap that is not one activation.
    """
    below = tensors.under(prefix)
    steps: list[Operation] = []
    for before, index in pairwise([-1, *below.numbers()]):
        steps += _gap(prefix, before, index, activation)
        steps.append(_operation_at(below, prefix, index))
    return (*steps, *last)


def _gap(
    prefix: str, before: int, index: int, activation: Activation | None
) -> tuple[Operation, ...]:
    missing = index - before - 1
    if missing == 0:
        return ()
    if missing > 1 or before < 0:
        raise CheckpointError(
            f"Between {prefix}{max(before, 0)} and {prefix}{index} the file names no operation, "
            f"and {missing} of them are possible.",
            hint="Describe the network itself with --declare arch=package.module:factory.",
        )
    if activation is None:
        raise CheckpointError(
            f"The file does not say which activation follows {prefix}{before}.",
            hint="Write --declare head_act=relu (or gelu, silu, …), or head_act in the card.",
        )
    return (act(activation),)


def _operation_at(below: Weights, prefix: str, index: int) -> Operation:
    key = f"{prefix}{index}"
    weight = below.get(f"{index}.weight")
    if weight is not None and weight.dim() == 2:
        return linear(key)
    if f"{index}.running_mean" in below:
        return norm(key)
    if f"{index}.weight_v" in below or below.has(rf"{index}\.parametrizations\."):
        return weight_normed(key)
    raise CheckpointError(
        f"{key} is neither a Linear nor a BatchNorm with statistics: it holds "
        f"{', '.join(sorted(below.under(f'{index}.')))}.",
        hint="Describe the network itself with --declare arch=package.module:factory.",
    )


def numbered_logits(operations: Sequence[Operation]) -> dict[str, Sequence[Operation]]:
    """Return logits that one operation each gives by their names: ``Q``, or ``Q1``, ``Q2``, …."""
    if len(operations) == 1:
        return {"Q": operations}
    return {f"Q{number}": (one,) for number, one in enumerate(operations, start=1)}


class Head(nn.Sequential):
    """Layers named ``1``, ``2``, … whose outputs are the cut points ``head.1``, ``head.2``, …."""

    def __init__(self, layers: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        for number, layer in enumerate(layers, start=1):
            self.add_module(str(number), layer)

    def layer_names(self) -> tuple[str, ...]:
        """Return the names of the layers: without L2 norms, which are called ``3n``."""
        return tuple(name for name, _ in self.named_children() if name.isdecimal())

    def norm_names(self) -> tuple[str, ...]:
        """Return the names of the L2 norms."""
        return tuple(name for name, _ in self.named_children() if not name.isdecimal())


class L2Norm(nn.Module):
    """Rows divided by their Euclidean norm, as ``torch.nn.functional.normalize`` does."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows of length 1."""
        return functional.normalize(rows, dim=-1)


class MatrixProduct(nn.Module):
    """The product with a matrix (inputs, outputs), on the right: CLIP's projection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))

    def forward(self, rows: Tensor) -> Tensor:
        """Return ``rows @ weight``."""
        return rows @ self.weight


class WeightNormed(nn.Module):
    """A bias-free Linear in weight-norm form, kept as its two tensors.

    Salimans and Kingma 2016, equation 2: ``w = g · v / ‖v‖``, the norm over each output's row.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(outputs, 1))
        self.weight_v = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the product with the normalised rows."""
        lengths = self.weight_v.norm(dim=1, keepdim=True)
        return functional.linear(rows, self.weight_g * self.weight_v / lengths)


class QuickGELU(nn.Module):
    """``x · σ(1.702 x)``, the approximation that OpenAI's CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation, elementwise."""
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "quick_gelu": QuickGELU,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
}


def build(operations: Sequence[Operation], tensors: Weights) -> tuple[Head, Weights]:
    """Return a head and its tensors under the names of the head's own state dict.

    A layer is the longest run of operations that ends just before the next Linear, or at the end:
    its output, after normalisation and activation, is the cut point. L2 norms are no layers.

    Raises:
        CheckpointError: A tensor is missing, or the widths of two layers do not fit.
    """
    head, weights = Head(), Weights()
    names: list[str] = []
    number = 0
    for operation in operations:
        if operation.kind == "act" and operation.act == "none":
            continue
        if operation.kind == "l2":
            head.add_module(f"{number}n", L2Norm())
            continue
        if operation.kind in _AFFINE and (not names or "linear" in names):
            number, names = number + 1, []
            head.add_module(str(number), nn.Sequential())
        elif not names:
            number, names = number + 1, ["before"]
            head.add_module(str(number), nn.Sequential())
        module, own = _module(operation, tensors)
        name = _NAMES[operation.kind]
        while name in names:
            name += "_"
        names.append(name)
        head.get_submodule(str(number)).add_module(name, module)
        weights = weights.joined(own.within(f"{number}.{name}."))
    _check_widths(head)
    return head, weights


_NAMES: dict[OperationKind, str] = {
    "linear": "linear",
    "weight_normed": "linear",
    "matrix": "linear",
    "norm": "norm",
    "layer_norm": "norm",
    "act": "act",
}


def _module(operation: Operation, tensors: Weights) -> tuple[nn.Module, Weights]:
    if operation.kind == "act":
        return ACTIVATIONS[operation.act](), Weights()
    if operation.kind == "matrix":
        own = tensors.only(operation.key).renamed([(f"^{re.escape(operation.key)}$", "weight")])
        return MatrixProduct(*_shape(own, "weight", operation.key, 2)), own
    own = tensors.under(f"{operation.key}.")
    if operation.kind == "linear":
        outputs, inputs = _shape(own, "weight", operation.key, 2)
        return nn.Linear(inputs, outputs, bias="bias" in own), own
    if operation.kind == "weight_normed":
        own = own.renamed(_PARAMETRIZED)
        outputs, inputs = _shape(own, "weight_v", operation.key, 2)
        return WeightNormed(inputs, outputs), own
    if operation.kind == "layer_norm":
        (width,) = _shape(own, "weight", operation.key, 1)
        return nn.LayerNorm(width, eps=operation.eps, bias="bias" in own), own
    return _batch_norm(operation, own)


_PARAMETRIZED = (
    (r"^parametrizations\.weight\.original0$", "weight_g"),
    (r"^parametrizations\.weight\.original1$", "weight_v"),
)


def _batch_norm(operation: Operation, own: Weights) -> tuple[nn.Module, Weights]:
    affine, tracked = "weight" in own, "running_mean" in own
    (width,) = _shape(own, "running_mean" if tracked else "weight", operation.key, 1)
    module = nn.BatchNorm1d(width, eps=operation.eps, affine=affine, track_running_stats=tracked)
    if affine and "bias" not in own:
        # A BatchNorm whose bias was switched off adds nothing: zero is its value, not a guess.
        own = own.with_tensor("bias", torch.zeros(width), ["weight"])
    return module, own


def _shape(own: Weights, name: str, key: str, dimensions: int) -> tuple[int, ...]:
    tensor = own.get(name)
    if tensor is None or tensor.dim() != dimensions:
        found = "is not there" if tensor is None else f"has shape {tuple(tensor.shape)}"
        raise CheckpointError(
            f"The head's {key}.{name} {found}.",
            hint="The head is of another structure than its family's; see --declare arch.",
        )
    return tuple(tensor.shape)


def _check_widths(head: Head) -> None:
    width: int | None = None
    for name, module in head.named_modules():
        inputs, outputs = _widths(module)
        if inputs is None:
            continue
        if width is not None and inputs != width:
            raise CheckpointError(
                f"The head does not fit together: layer {name} takes {inputs} features and is "
                f"given {width}.",
                hint="The file holds a head of another structure than its family's.",
            )
        width = outputs


def _widths(module: nn.Module) -> tuple[int | None, int | None]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, MatrixProduct):
        return module.weight.shape[0], module.weight.shape[1]
    if isinstance(module, WeightNormed):
        return module.weight_v.shape[1], module.weight_v.shape[0]
    if isinstance(module, nn.BatchNorm1d):
        return module.num_features, module.num_features
    return None, None


def describe_head(head: Head, outputs: Sequence[str] = ()) -> str:
    """Return one phrase about a head, such as ``3-layer MLP, 256-256-256``."""
    widths = [
        str(_widths(module)[1])
        for module in head.modules()
        if isinstance(module, nn.Linear | MatrixProduct | WeightNormed)
    ]
    more = f", then {', '.join(outputs)}" if outputs else ""
    if not widths:
        return f"none{more}"
    layers = "linear" if len(widths) == 1 else f"{len(widths)}-layer MLP"
    return f"{layers}, {'-'.join(widths)}{more}"


def mlp_head(widths: Sequence[int]) -> Head:
    """Build an MLP head: Linear, BatchNorm and ReLU a layer, the last one a bare Linear.

    The structure of the projectors in FFCV-SSL's ``train_ssl.py``: hidden layers have biases and
    are probed after their ReLU, the last has neither bias, normalisation nor activation.

    Args:
        widths: Width of the trunk's output and of each layer: four numbers for three layers.
    """
    pairs = list(pairwise(widths))
    hidden = [
        nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())
        for inputs, outputs in pairs[:-1]
    ]
    last = [nn.Sequential(nn.Linear(*pair, bias=False)) for pair in pairs[-1:]]
    return Head([*hidden, *last])


class TrunkAndHead(nn.Module):
    """A trunk whose representation goes through a head, and what reads the embedding.

    Args:
        trunk: Images (b, 3, h, w) to representations (b, d).
        head: Representations to embeddings.
        output: A read-out behind the head, such as four numbers for a rotation; not a cut point.
        predictor: What only the online branch has behind its head (BYOL, SimSiam, MoCo v3).
        logits: By name: prototypes or classifiers that all read the embedding.
    """

    def __init__(
        self,
        trunk: nn.Module,
        head: Head,
        output: nn.Module | None = None,
        predictor: Head | None = None,
        logits: dict[str, Head] | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.output = output or nn.Identity()
        self.predictor = predictor or Head()
        self.logits = nn.ModuleDict(logits or {})

    def forward(self, images: Tensor) -> Tensor:
        """Return the read-out (b, k), or the embeddings where there is no read-out."""
        embedding = self.head(self.trunk(images))
        self.predictor(embedding)
        for logits in self.logits.values():
            logits(embedding)
        result: Tensor = self.output(embedding)
        return result
