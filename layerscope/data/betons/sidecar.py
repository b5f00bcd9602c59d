"""What lies beside a packed file: everything about its source but the pixels.

``x.beton.source.npz`` makes ``x.beton`` complete: ids, splits, groups, tasks and targets, and how
it was packed. Text lies in it as JSON, so that nothing in the file can be run.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from layerscope.data.splits import codes
from layerscope.errors import SourceError
from layerscope.types import SPLITS, Source, Task

VERSION = 1

_BROKEN = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    EOFError,
    NotImplementedError,  # a zip file of a kind that nobody wrote
    zipfile.BadZipFile,
    zlib.error,
)
_BOTH = "Copy or make both files anew with layerscope pack."


class Sidecar(NamedTuple):
    """What a sidecar holds."""

    source: Source
    """Without its images."""
    identity: str
    """The identity of the file that it belongs to."""
    packing: Mapping[str, Any]
    """How the images were packed."""


def sidecar_of(path: Path) -> Path:
    """Return where the sidecar of a file is.

    Examples:
        >>> sidecar_of(Path("birds.beton")).name
        'birds.beton.source.npz'
    """
    return path.with_name(path.name + ".source.npz")


def write_sidecar(file: BinaryIO, sidecar: Sidecar) -> None:
    """Write a sidecar into an open file."""
    source = sidecar.source
    record = {
        "version": VERSION,
        "identity": sidecar.identity,
        "packing": dict(sidecar.packing),
        "name": source.name,
        "manifest": source.manifest,
        "annotations": source.annotations,
        "framing": source.framing,
        "tasks": [asdict(task) for task in source.tasks],
        "task_splits": list(source.task_splits),
        "missing": {str(row): reason for row, reason in source.missing.items()},
        "notes": list(source.notes),
    }
    targets = [source.targets[task.name] for task in source.tasks]
    parts = list(source.task_splits.values())
    arrays: dict[str, Any] = {
        "record": _as_bytes(record),
        "ids": _as_bytes(source.ids),
        "splits": codes(source.splits),
        "groups": _as_bytes(source.groups.tolist()),
        **{f"target_{place}": target for place, target in enumerate(targets)},
        **{f"task_split_{place}": part for place, part in enumerate(parts)},
    }
    np.savez_compressed(file, **arrays)


def read_sidecar(path: Path) -> Sidecar:
    """Return what the sidecar of the ``.beton`` file at ``path`` says.

    Raises:
        SourceError: There is no sidecar, or it is damaged or of another version.
    """
    beside = sidecar_of(path)
    try:
        contents = beside.read_bytes()
    except FileNotFoundError:
        raise SourceError(
            f"There is no {beside.name!r} beside {str(path)!r}.",
            hint="Copy both files. What FFCV itself has written opens with --data beton=PATH.",
        ) from None
    except OSError as error:
        raise SourceError(
            f"{str(beside)!r} cannot be read: {error.strerror}.", hint=_BOTH
        ) from error
    try:
        with np.load(io.BytesIO(contents), allow_pickle=False) as arrays:
            return _sidecar_from(arrays, path)
    except _BROKEN as error:
        raise SourceError(f"{str(beside)!r} is damaged: {error}.", hint=_BOTH) from error


def _sidecar_from(arrays: Mapping[str, npt.NDArray[Any]], path: Path) -> Sidecar:
    record = _from_bytes(arrays["record"])
    if record["version"] != VERSION:
        raise SourceError(
            f"{sidecar_of(path).name!r} is of version {record['version']}, not {VERSION}.",
            hint="Pack the source again with this version of LayerScope.",
        )
    tasks = tuple(_task(it) for it in record["tasks"])
    source = Source(
        name=record["name"],
        ids=tuple(_from_bytes(arrays["ids"])),
        splits=np.array(SPLITS)[arrays["splits"]],
        groups=np.array(_from_bytes(arrays["groups"]), dtype=np.str_),
        tasks=tasks,
        targets={task.name: arrays[f"target_{place}"] for place, task in enumerate(tasks)},
        manifest=record["manifest"],
        annotations=record["annotations"],
        root=path,
        framing=record["framing"],
        task_splits={
            name: arrays[f"task_split_{place}"] for place, name in enumerate(record["task_splits"])
        },
        missing={int(row): reason for row, reason in record["missing"].items()},
        notes=tuple(record["notes"]),
    )
    return Sidecar(source, record["identity"], record["packing"])


def _task(record: Mapping[str, Any]) -> Task:
    return Task(**{**record, "classes": tuple(record["classes"])})


def _as_bytes(value: Mapping[str, Any] | Sequence[str]) -> npt.NDArray[np.uint8]:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return np.frombuffer(text.encode(), np.uint8)


def _from_bytes(array: npt.NDArray[np.uint8]) -> Any:
    return json.loads(array.tobytes())
