"""Pickles outside of archives: torch.save before 1.6, and those that torch never wrote."""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from layerscope.models.files.pickles import Malformed, Pairs, PersistentId, Pickle, read_pickle
from layerscope.models.files.records import Interpreter, require_trust
from layerscope.models.files.storages import Span, Tensors, span_of

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LENGTH = 8


def read_legacy(path: Path, trust: Collection[str]) -> Any:
    """Return what a checkpoint of torch.save before 1.6 holds.

    Raises:
        Malformed: It is damaged, was not written by torch.save, or holds code.
    """
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        first = read_pickle(data)
        if first.value != _MAGIC:
            raise _foreign(first)
        return _read(data, path, first.end, trust)


def _read(data: mmap.mmap, path: Path, start: int, trust: Collection[str]) -> Any:
    protocol = read_pickle(data, start)
    system = read_pickle(data, protocol.end)
    for each in (protocol, system):
        require_trust(each, ())
    if protocol.value != _PROTOCOL or not isinstance(system.value, Pairs):
        raise Malformed("is damaged: it has the mark of torch.save, and not what follows it")
    if ("little_endian", True) not in system.value.pairs:
        raise Malformed(
            "was written on a machine of another byte order",
            hint="Load it there and save it as safetensors.",
        )
    pickle = read_pickle(data, system.end)
    require_trust(pickle, trust)
    keys = read_pickle(data, pickle.end)
    require_trust(keys, ())
    if not isinstance(keys.value, list):
        raise Malformed("is damaged: the list of its storages is missing")
    where = _places(data, keys, _types(pickle.outside))
    bytes_of = _Storages(path, where)
    tensors = Tensors(bytes_of.storage, len(data))
    return Interpreter(tensors, pickle.reads).value(pickle.value)


class _Storages:
    """The storages of a legacy file, copied out of it as they are asked for."""

    def __init__(self, path: Path, where: Mapping[str, tuple[int, int]]) -> None:
        self._path, self._where = path, where
        self._whole: dict[str, torch.UntypedStorage] = {}

    def storage(self, span: Span) -> torch.UntypedStorage:
        if span.key not in self._where:
            raise Malformed(f"is damaged: it has no storage {span.key!r}")
        start, held = self._where[span.key]
        if held < span.bytes:
            raise Malformed(
                f"is damaged: its storage {span.key!r} claims {span.bytes} bytes and has {held}"
            )
        if span.key not in self._whole:
            with self._path.open("rb") as file:
                file.seek(start)
                block = bytearray(file.read(held))
            self._whole[span.key] = torch.frombuffer(block, dtype=torch.uint8).untyped_storage()
        return span.of(self._whole[span.key])


def _types(outside: Iterable[PersistentId]) -> dict[str, int]:
    """Return the bytes of a value of each storage, by its key."""
    sizes: dict[str, int] = {}
    for reference in outside:
        span = span_of(reference.identity, "of a storage")
        sizes[span.key] = span.dtype.itemsize
    return sizes


def _places(data: mmap.mmap, keys: Pickle, sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    where: dict[str, tuple[int, int]] = {}
    position = keys.end
    for key in keys.value:
        if not isinstance(key, str) or key not in sizes:
            raise Malformed("is damaged: it holds a storage that nothing refers to")
        values = int.from_bytes(data[position : position + _LENGTH], "little", signed=True)
        held = values * sizes[key]
        position += _LENGTH
        if values < 0 or position + held > len(data):
            raise Malformed(
                f"is damaged or truncated: its storage {key[:40]!r} claims {held} bytes and "
                f"{max(len(data) - position, 0)} are left of the file"
            )
        where[key] = position, held
        position += held
    return where


def _foreign(pickle: Pickle) -> Malformed:
    names = sorted(map(ascii, pickle.globals))
    called = f" and would call upon {', '.join(names[:20])}" if names else ""
    return Malformed(
        f"is a pickle that torch.save did not write{called}; it was not run",
        hint="Convert it where it was made: save a state dict with torch.save or as safetensors.",
    )
