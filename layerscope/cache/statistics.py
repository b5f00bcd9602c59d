"""The statistics file, ``layerscope-statistics/1``: what is kept where features cannot be.

One HDF5 file, ``<checkpoint>@<source>.statistics.hdf5``, with the attributes of a cache and, for
each cut and pooling, split and task::

    cross/<cut>@<pooling>/<owner>/<split>/     joint moments of the features and, behind them, of
                                               the encoded targets of every regression task
    classes/<cut>@<pooling>/<task>/<split>/    moments by class

with ``count``, ``mean`` and ``scatter`` (not divided by the count, float64), or ``counts``,
``means`` and ``within`` or ``scatters``. ``owner`` is ``source``, or the task that divides the rows
otherwise. While it is collected, the parts of each process lie in ``….statistics.hdf5.parts/``,
with ``rows/done``: which rows of the source they have seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch

from layerscope.cache.cache_file import UNREADABLE
from layerscope.cache.collector import TaskGroup, class_name, cross_name, target_columns
from layerscope.cache.header import Header
from layerscope.cache.label import has_label, open_file, room_for_label, write_label, wrong_with
from layerscope.cache.layout import cache_name
from layerscope.cache.open_record import OpenRecord
from layerscope.cache.part import attributes, drafted
from layerscope.cache.records import to_json
from layerscope.errors import CacheError, UnknownNameError
from layerscope.stats.class_moments import ClassMoments, RunningClassMoments
from layerscope.stats.moments import CrossMoments, Moments, RunningCrossMoments, State
from layerscope.types import SPLITS, Split

SCHEMA = "layerscope-statistics/1"
SUFFIX = ".statistics.hdf5"
DONE = "rows/done"

_MAKE = "Make it with layerscope extract --stream statistics."


def statistics_name(checkpoint: str, source: str, limit: int | None = None) -> str:
    """Return the file name of the statistics of a checkpoint over a source.

    Examples:
        >>> statistics_name("simclr", "objects3d")
        'simclr@objects3d.statistics.hdf5'
    """
    return cache_name(checkpoint, source, limit).removesuffix(".h5") + SUFFIX


class Statistics(OpenRecord):
    """The statistics of every cut of one checkpoint; made by :func:`open_statistics`."""

    def moments(self, cut: str, split: Split = "train", task: str | None = None) -> Moments:
        """Return count, mean and scatter of a cut's features.

        Args:
            cut: ``layer4.1``, or with its pooling: ``blocks.3@cls``.
            split: Of which rows.
            task: Whose splits, where it has its own; by default the source's.

        Raises:
            UnknownNameError: There is no such cut.
        """
        own = task is not None and task in self._file.attrs["owners"].split("\n")
        return self._cross(cut, task if task and own else "source", split).features

    def cross(self, cut: str, task: str, split: Split = "train") -> CrossMoments:
        """Return the moments of a cut's features with a task's targets, for ridge regression.

        Latents are encoded as the ridge probe encodes them; classes are zeros and ones.

        Raises:
            UnknownNameError: There is no such cut or task.
        """
        columns = self._json("columns")
        if task in columns:
            owner, first, last = columns[task]
            return self._cross(cut, owner, split).only(slice(first, last))
        return _one_hot(self.classes(cut, task, split))

    def classes(self, cut: str, task: str, split: Split = "train") -> ClassMoments:
        """Return counts, means and scatters of a cut's features by the classes of a task.

        Raises:
            UnknownNameError: There is no such cut, or no task of classes of this name.
        """
        known = [entry.name for entry in self.tasks if entry.kind == "classes"]
        if task not in known:
            raise UnknownNameError("task of classes", task, known)
        state = self._state(class_name(self._key(cut), task, split))
        return RunningClassMoments.from_state(state).compute()

    def _cross(self, cut: str, owner: str, split: Split) -> CrossMoments:
        state = self._state(cross_name(self._key(cut), owner, split))
        return RunningCrossMoments.from_state(state).compute()

    def _key(self, cut: str) -> str:
        keys = [point.key for point in self.cuts]
        fitting = [key for key in keys if cut in (key, key.rpartition("@")[0])]
        if len(fitting) == 1:
            return fitting[0]
        raise UnknownNameError("layer", cut, fitting or keys)

    def _state(self, name: str) -> State:
        if name not in self._file:
            raise CacheError(
                f"{str(self.path)!r} has no {name}.",
                hint=f"No row belongs to that split, which is one of {', '.join(SPLITS)}.",
            )
        parts = self._file[name].items()
        return {key: torch.from_numpy(np.asarray(part[()])) for key, part in parts}


def open_statistics(path: Path | str) -> Statistics:
    """Open a statistics file.

    Raises:
        CacheError: It is missing, damaged, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CacheError(f"There are no statistics {str(path)!r}.", hint=_MAKE)
    try:
        wrong = wrong_with(path) if has_label(path) else ()
        file = open_file(path)
        schema = file.attrs.get("schema")
    except UNREADABLE as error:
        raise CacheError(f"{str(path)!r} cannot be read: {error}.", hint=_MAKE) from error
    if schema == SCHEMA and DONE not in file and not wrong:
        return Statistics(path, file)
    file.close()
    if wrong:
        raise CacheError(
            f"{str(path)!r} is damaged: {', '.join(wrong)} changed after it was written.",
            hint="Collect it again with --existing replace.",
        )
    raise CacheError(f"{str(path)!r} holds no whole statistics (schema {schema!r}).", hint=_MAKE)


def write_statistics(
    path: Path,
    header: Header,
    groups: Sequence[TaskGroup],
    states: Mapping[str, State],
    done: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Write a statistics file, or a part of one, all at once.

    Args:
        path: Its name; what is there is replaced when all is on the disk.
        header: Of what was collected.
        groups: The tasks by their splits.
        states: By name.
        done: (n,) which rows a part has seen; None for everything.
    """
    names = [f"{name}/{key}" for name, state in states.items() for key in state]
    with drafted(path) as draft:
        with h5py.File(draft, "x", userblock_size=room_for_label([*names, DONE])) as file:
            for name, state in states.items():
                for key, values in state.items():
                    file.create_dataset(f"{name}/{key}", data=values.numpy())
            if done is not None:
                file.create_dataset(DONE, data=done)
            file.attrs.update(
                attributes(header, header.storage)
                | {
                    "schema": SCHEMA,
                    "columns": to_json(target_columns(groups)),
                    "owners": "\n".join(group.owner for group in groups),
                }
            )
        write_label(draft)


def read_states(file: h5py.File) -> dict[str, State]:
    """Return the statistics of an open file by their names."""
    states: dict[str, State] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and name != DONE:
            group, _, key = name.rpartition("/")
            states.setdefault(group, {})[key] = torch.from_numpy(np.asarray(item[()]))

    file.visititems(visit)
    return states


def _one_hot(classes: ClassMoments) -> CrossMoments:
    """Return the moments with zeros and ones: their cross scatter is n_c (mean of c − mean)."""
    total, counts = classes.total, classes.counts.double()
    shares = counts / max(total.count, 1)
    scatter = torch.diag(counts) - total.count * torch.outer(shares, shares)
    cross = (counts[:, None] * (classes.means - total.mean)).T
    cross = torch.where(counts > 0, cross, 0.0)
    return CrossMoments(
        total, Moments(total.count, shares, scatter, total.precision), cross.contiguous()
    )
