"""Files of safetensors, and checkpoints in several files with an index of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from layerscope.models.files.pickles import Malformed
from layerscope.models.files.storages import unusable

INDEX = ".index.json"
"""How the name of an index ends: ``model.safetensors.index.json``."""

_LENGTH = 8
_LARGEST_HEADER = 100_000_000
_LARGEST_INDEX = 1 << 26
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL"), 8),
}
_UNUSABLE = {"F8": "torch.float8", "F4": "torch.float4", "F6": "torch.float6", "C": "Complex"}


def is_safetensors(head: bytes) -> bool:
    """Return whether a file's first bytes, nine or more, are those of a file of safetensors."""
    return head[_LENGTH : _LENGTH + 1] == b"{"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of safetensors, by name.

    Raises:
        Malformed: It is damaged, or holds other than plain numbers.
    """
    _check_header(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        reason = str(error).split("\n", 1)[0].rstrip(".")
        raise Malformed(f"is damaged or truncated: {reason}") from error


def _check_header(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        if length > min(size - _LENGTH, _LARGEST_HEADER):
            raise Malformed(
                f"is damaged or truncated: its header claims {length} bytes and the file has {size}"
            )
        text = file.read(length)
    header = _parsed(text, "its header")
    for name, entry in header.items():
        if name != "__metadata__":
            _check_entry(ascii(name), entry, size - _LENGTH - length)


def _check_entry(name: str, entry: Any, room: int) -> None:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        counts = (*shape, begin, end)
    except (TypeError, KeyError, ValueError) as error:
        raise Malformed(f"is damaged: its tensor {name} is described wrongly") from error
    if not isinstance(dtype, str) or dtype not in _BITS:
        known = next((v for k, v in _UNUSABLE.items() if str(dtype).startswith(k)), str(dtype))
        raise unusable(known[:24], name)
    if not all(type(count) is int and count >= 0 for count in counts):
        raise Malformed(f"is damaged: its tensor {name} has an impossible size or offset")
    needed = math.prod(shape) * _BITS[dtype] // 8
    if end > room or end - begin != needed:
        raise Malformed(
            f"is damaged or truncated: its tensor {name} needs {needed} bytes, claims "
            f"{end - begin} and the file holds {room}"
        )


def shards_of(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the names of the tensors in each file that an index names, by the file's name.

    Raises:
        Malformed: It is damaged, or names a file outside of its folder.
    """
    if path.stat().st_size > _LARGEST_INDEX:
        raise Malformed(f"is not believable: an index of {path.stat().st_size} bytes")
    index = _parsed(path.read_bytes(), "the index")
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise Malformed("is an index without a weight_map")
    shards: dict[str, tuple[str, ...]] = {}
    for name, shard in placed.items():
        if not _is_file_name(shard) or shard.endswith(INDEX):
            raise Malformed(
                f"is an index that names {shard!r}, which is no file of its folder",
                hint="Put all of its files in one folder.",
            )
        shards[shard] = (*shards.get(shard, ()), name)
    return shards


def _is_file_name(name: Any) -> bool:
    plain = isinstance(name, str) and not set(name) & set("/\\:\0")
    return plain and name not in {"", ".", ".."}


def merge_shards(
    shards: Mapping[str, tuple[Mapping[str, Any], tuple[str, ...]]],
) -> dict[str, Tensor]:
    """Return the tensors of several files as one state dict.

    Args:
        shards: By file: what it holds, and the names that the index says it holds.

    Raises:
        Malformed: A file holds more or less than the index says.
    """
    state: dict[str, Tensor] = {}
    for file, (held, named) in shards.items():
        astray = sorted(set(map(str, held)) ^ set(named))
        if astray:
            raise Malformed(
                f"is an index that does not fit its file {file!r}: {', '.join(astray[:3])}",
                hint="Download all of its files again.",
            )
        state |= {name: held[name] for name in named}
    return state


def _parsed(text: bytes, what: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"is damaged: {what} is no JSON") from error
    if not isinstance(parsed, dict):
        raise Malformed(f"is damaged: {what} is no table")
    return parsed


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name comes twice")
    return table
