"""Taps: the open hooks that pool every cut point's output during one forward."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from layerscope.errors import CheckpointError
from layerscope.models.cuts import call_name
from layerscope.models.pooling import pool
from layerscope.types import CutModel, CutPoint


class Taps:
    """Hooks on the chosen cut points of one network; made by :func:`open_taps`.

    Args:
        module: The network.
        cuts: The cut points to capture, a cut point once for each of its poolings.
    """

    def __init__(self, module: nn.Module, cuts: Sequence[CutPoint]) -> None:
        self._module = module
        self._chosen = tuple(cuts)
        self._cuts: dict[str, list[CutPoint]] = defaultdict(list)
        for cut in cuts:
            self._cuts[cut.module].append(cut)
        self._counts: Counter[str] = Counter()
        self._captured: dict[str, Tensor] = {}
        names = dict.fromkeys(cut.module.partition("#")[0] for cut in cuts)
        self._handles = [
            module.get_submodule(name).register_forward_hook(self._hook(name)) for name in names
        ]

    def _hook(self, name: str) -> Any:
        def capture(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._counts[name] += 1
            for cut in self._cuts.get(call_name(name, self._counts[name]), ()):
                self._captured[cut.key] = pool(output, cut.layout, cut.pooling, cut.prefix_tokens)

        return capture

    def run(self, batch: Tensor) -> dict[str, Tensor]:
        """Run one forward and return the features of cut points that have one pooling each.

        Args:
            batch: (b, 3, h, w) preprocessed images.

        Returns:
            By cut name: (b, width) float32, in memory that nothing else writes to.

        Raises:
            CheckpointError: As :meth:`run_poolings`, or a cut point has several poolings.
        """
        names = Counter(cut.name for cut in self._chosen)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise CheckpointError(
                f"{twice[0]} is captured in several poolings.", hint="Call run_poolings."
            )
        captured = self.run_poolings(batch)
        return {cut.name: captured[cut.key] for cut in self._chosen}

    def run_poolings(self, batch: Tensor) -> dict[str, Tensor]:
        """Run one forward and return the features of every chosen cut point and pooling.

        Args:
            batch: (b, 3, h, w) preprocessed images.

        Returns:
            By cut and pooling, ``blocks.3@cls``: (b, width) float32, in memory that nothing else
            writes to.

        Raises:
            CheckpointError: A cut point was not reached, as happens to hooks of a network that
                was compiled before they were set.
        """
        self._counts.clear()
        self._captured = {}
        self._module(batch)
        missing = [cut.name for cut in self._chosen if cut.key not in self._captured]
        if missing:
            raise CheckpointError(
                f"The forward pass did not reach {', '.join(dict.fromkeys(missing))}.",
                hint="Extract before compiling the network, and with a fixed call order.",
            )
        return {cut.key: self._captured[cut.key] for cut in self._chosen}

    def close(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def on_host(features: Mapping[str, Tensor]) -> dict[str, npt.NDArray[np.float32]]:
    """Return features as arrays in the host's memory, moved there in one transfer.

    Args:
        features: By name: (b, width), all of one batch and device.
    """
    return under_way(features)()


def under_way(
    features: Mapping[str, Tensor],
) -> Callable[[], dict[str, npt.NDArray[np.float32]]]:
    """Begin to move features to the host's memory, and return what waits for them.

    Args:
        features: By name: (b, width), all of one batch and device.
    """
    if next(iter(features.values())).device.type == "cpu":
        arrays = {name: rows.float().numpy() for name, rows in features.items()}
        return lambda: arrays
    names, widths = tuple(features), [rows.shape[1] for rows in features.values()]
    together = torch.cat([rows.float() for rows in features.values()], dim=1)
    if together.device.type != "cuda":
        return lambda: _separate(together.cpu(), names, widths)
    moved = torch.empty(together.shape, dtype=together.dtype, pin_memory=True)
    moved.copy_(together, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def wait() -> dict[str, npt.NDArray[np.float32]]:
        arrived.synchronize()
        return _separate(moved, names, widths)

    return wait


def _separate(
    together: Tensor, names: Iterable[str], widths: list[int]
) -> dict[str, npt.NDArray[np.float32]]:
    parts = torch.split(together, widths, dim=1)
    return {name: part.numpy() for name, part in zip(names, parts, strict=True)}


@contextmanager
def open_taps(model: CutModel, cuts: Sequence[CutPoint]) -> Iterator[Taps]:
    """Open taps on the chosen cut points and close them whatever happens.

    Args:
        model: A network with its cut points.
        cuts: The cut points to capture, a subset of the network's.

    Raises:
        CheckpointError: Hooks on this kind of module lose features without a word.
    """
    _refuse_wrappers(model.module)
    taps = Taps(model.module, cuts)
    try:
        yield taps
    finally:
        taps.close()


def _refuse_wrappers(module: nn.Module) -> None:
    if isinstance(module, nn.DataParallel):
        raise CheckpointError(
            "The network is wrapped in DataParallel, which keeps the features of one replica only.",
            hint="Pass the network itself (wrapped.module).",
        )
    if hasattr(module, "_orig_mod"):
        raise CheckpointError(
            "The network was compiled; hooks set after its first call never fire.",
            hint="Pass the network itself (compiled._orig_mod).",
        )
