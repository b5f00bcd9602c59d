"""Random weights for any network, by rules that ask neither its library nor its training.

A network's own constructor may load weights, and one that a file is to fill leaves its memory as it
was. So every tensor that a training changes is drawn anew here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

TOKEN_DEVIATION = 0.02
"""Of tokens, position embeddings and other tensors without a fan-in, as in vision transformers
(Touvron et al. 2021, Training data-efficient image transformers, appendix)."""
PRELU_SLOPE = 0.25
"""Of a PReLU, as it starts (He et al. 2015): with 1 it would do nothing."""

_STATISTICS = {"running_mean": 0.0, "running_var": 1.0}
_TRAINED_BUFFERS = ("weight", "bias", *_STATISTICS)
"""What a normalisation keeps in buffers; others hold what is computed, such as filters."""


@torch.no_grad()
def draw_weights(network: nn.Module, seed: int) -> None:
    """Give a network random weights, in place, that depend on its shapes and the seed alone.

    Kernels of convolutions are normal with variance 2 / fan-in (He et al. 2015, Delving Deep into
    Rectifiers, equation 10), matrices of Linear and attention layers with variance 1 / fan-in
    (LeCun et al. 1998, Efficient BackProp, equation 16): the size of the activations is kept.
    Biases are 0; scales of normalisations and of layers are 1; running statistics are of mean 0 and
    variance 1. What else has several axes is normal with deviation 0.02.

    Args:
        network: On any device; the numbers are drawn on the CPU.
        seed: Of a generator of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        for name, tensor in _trained_tensors(module):
            constant = _constant(module, name, tensor)
            if constant is not None:
                tensor.fill_(constant)
            else:
                drawn = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(drawn * _deviation(module, name, tensor))


def _trained_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a module's own parameters, and the buffers of a normalisation."""
    yield from module.named_parameters(recurse=False)
    for name, buffer in module.named_buffers(recurse=False):
        if name in _TRAINED_BUFFERS and buffer.is_floating_point():
            yield name, buffer


def _constant(module: nn.Module, name: str, tensor: Tensor) -> float | None:
    """Return the one value that every network starts with there; None where it is drawn."""
    if name in _STATISTICS:
        return _STATISTICS[name]
    if name.endswith(("bias", "beta")):
        return 0.0
    if _fan_in(module, name, tensor):
        return None
    if isinstance(module, nn.PReLU):
        return PRELU_SLOPE
    # One number an output, perhaps shaped to be multiplied with maps, is a scale.
    return 1.0 if tensor.numel() == (len(tensor) if tensor.dim() else 1) else None


def _deviation(module: nn.Module, name: str, tensor: Tensor) -> float:
    fan_in = _fan_in(module, name, tensor)
    if not fan_in:
        return TOKEN_DEVIATION
    return math.sqrt((2 if isinstance(module, _ConvNd) else 1) / fan_in)


def _fan_in(module: nn.Module, name: str, tensor: Tensor) -> int:
    """Return how many inputs each output of a layer's matrix sums; 0 of what is no such matrix."""
    matrix = isinstance(module, _ConvNd | nn.Linear) and name == "weight"
    attention = isinstance(module, nn.MultiheadAttention) and name.endswith("proj_weight")
    return tensor[0].numel() if matrix or attention else 0
