"""Other people's networks as the judge: what their own modules compute, read by forward hooks."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from layerscope.models import load
from layerscope.models.checkpoint import LoadedModel
from layerscope.models.declared import Declared
from layerscope.models.taps import open_taps
from layerscope.testing import check_capture

POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda x: x[:, 0],
    "patches": lambda x: x[:, 1:].mean(1),
    "behind registers": lambda x: x[:, 5:].mean(1),
    "mean": lambda x: x.mean(1),
    "map": lambda x: x.mean((2, 3)),
    "map-last": lambda x: x.mean((1, 2)),
    "none": lambda x: x,
}

Where = Mapping[str, tuple[str, str]]
"""By cut name: the module whose output it is (``""``: the network's), and one of POOLS."""


def hooked(
    network: nn.Module,
    where: Where,
    images: Tensor,
    run: Callable[[Tensor], object] | None = None,
) -> dict[str, Tensor]:
    """Return the pooled outputs of a network's modules, in the order in which they are called."""
    outputs: dict[str, Tensor] = {}

    def keep(cut: str, pool: str):
        def hook(_module, _inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            outputs[cut] = POOLS[pool](output.clone())

        return hook

    handles = [
        network.get_submodule(module).register_forward_hook(keep(cut, pool))
        for cut, (module, pool) in where.items()
    ]
    try:
        with torch.no_grad():
            (run or network)(images)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def images(side: int) -> Tensor:
    """Return three images of noise."""
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))


def loaded_like(
    path: Path,
    network: nn.Module,
    where: Where,
    side: int,
    *,
    declared: Declared | None = None,
    run: Callable[[Tensor], object] | None = None,
) -> LoadedModel:
    """Load a file, assert that its cuts are what the network's own modules compute, return it."""
    model = load(path, declared)
    expected = hooked(network.eval(), where, images(side), run)
    cuts = (*model.cuts, *model.more)
    with torch.no_grad(), open_taps(model, cuts) as taps:
        found = taps.run(images(side))
    assert list(found) == list(expected), f"{list(found)} instead of {list(expected)}"
    for name, features in found.items():
        gap = (features - expected[name]).abs().max() / expected[name].abs().max()
        assert gap <= 1e-5, f"{name} differs by {gap:.1e}"
    assert check_capture(model.module, cuts, images(side)) == []
    return model


def transformer_cuts(
    embed: str, blocks: str, depth: int, norm: str, pool: str = "cls", patches: str = "patches"
) -> Where:
    """Return the cuts of a transformer by the names of its modules."""
    return {
        "embed": (embed, patches),
        **{f"blocks.{i}": (f"{blocks}.{i}", pool) for i in range(depth)},
        "trunk": (norm, pool),
    }
