"""Tensors over the storages of a file, each claim checked against the bytes that are there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from layerscope.models.files.pickles import Global, Malformed

DTYPES: Mapping[str, torch.dtype] = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "Untyped": torch.uint8,
}
"""By the name that torch gives a storage of that type."""

NAMED = {str(dtype): dtype for dtype in DTYPES.values()} | {
    str(dtype): dtype for dtype in (torch.uint16, torch.uint32, torch.uint64)
}
"""Every type of which plain weights are, by the name that torch gives it."""

_UNUSABLE = {
    "Complex": "complex numbers",
    "QInt": "quantised values",
    "QUInt": "quantised values",
    "torch.complex": "complex numbers",
    "torch.float": "float8 or narrower values, whose scales a file of weights does not tell",
    "torch.q": "quantised values",
}
_MOST_DIMENSIONS = 64
_LARGEST_SIZE = 1 << 48
_ALIGNMENT = 8
_SHARED = 8
_SPARE = 1 << 20
"""Values of all tensors that lie over one another: so many times what the file holds, and these."""


@dataclass(frozen=True)
class Span:
    """What a pickle says of a storage: its key, its type, and how many values it holds."""

    key: str
    dtype: torch.dtype
    values: int
    first: int = 0
    """The first of the storage's values that is meant: not 0 for a view of another storage."""

    @property
    def bytes(self) -> int:
        """Number of bytes from the storage's beginning to the end of what is meant."""
        return (self.first + self.values) * self.dtype.itemsize

    def of(self, whole: torch.UntypedStorage, start: int = 0) -> torch.UntypedStorage:
        """Return the bytes that are meant, in place, of a storage that begins at ``start``."""
        begin = start + self.first * self.dtype.itemsize
        return cast(torch.UntypedStorage, whole[begin : start + self.bytes])


Find = Callable[[Span], torch.UntypedStorage]
"""Returns the bytes that a span means, or raises where the file does not hold them."""


class Tensors:
    """Makes the tensors of one file, over its bytes.

    Args:
        find: The bytes of a storage.
        values: How many values the file can hold at most.
    """

    def __init__(self, find: Find, values: int) -> None:
        self._find = find
        self._left = _SHARED * values + _SPARE
        self._storages: dict[Span, torch.UntypedStorage] = {}

    def over(
        self, span: Span, layout: tuple[Any, Any, Any], dtype: torch.dtype, name: str
    ) -> Tensor:
        """Return a tensor over a storage.

        Args:
            span: The storage.
            layout: First value, size and strides, as the file claims them.
            dtype: Type of the tensor's values.
            name: The tensor's name, for messages.

        Raises:
            Malformed: The claims do not fit each other or the storage.
        """
        first, size, stride = _layout(layout, name)
        count = math.prod(size)
        room = span.values * span.dtype.itemsize // dtype.itemsize
        last = first + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if count and last >= room:
            raise Malformed(
                f"is damaged: its tensor {name} of size {_times(size)} needs {last + 1} values and "
                f"its storage has {room}"
            )
        if not count:
            return torch.empty(size, dtype=dtype)
        storage = self._storage(span, name)
        self._left -= count
        if self._left < 0:
            raise Malformed(
                f"is not believable: its tensor {name} of size {_times(size)} unfolds to far more "
                "values than the file holds",
                hint="Save a copy in which every tensor is contiguous.",
            )
        return torch.empty(0, dtype=dtype).set_(storage, first, size, stride)

    def _storage(self, span: Span, name: str) -> torch.UntypedStorage:
        if span not in self._storages:
            try:
                storage = self._find(span)
            except Malformed as error:
                raise Malformed(f"{error.phrase}, which its tensor {name} needs") from error
            if storage.data_ptr() % _ALIGNMENT:
                # Vector instructions fault on values that do not lie where their type demands.
                storage = torch.empty(0, dtype=torch.uint8).set_(storage).clone().untyped_storage()
            self._storages[span] = storage
        return self._storages[span]


def span_of(identity: Any, name: str) -> Span:
    """Return what a reference to a storage says.

    Raises:
        Malformed: It is no reference to a storage of plain numbers.
    """
    if not (isinstance(identity, tuple) and len(identity) in {5, 6} and identity[0] == "storage"):
        raise Malformed(f"is damaged: its tensor {name} lies in no storage")
    _, kind, key, _, values, *view = identity
    named = isinstance(key, str) or _is_count(key)
    if not (isinstance(kind, Global) and named and _is_count(values)):
        raise Malformed(f"is damaged: the storage of its tensor {name} is described wrongly")
    short = kind.name.rpartition(".")[2].removesuffix("Storage")
    if short not in DTYPES:
        raise unusable(short, name)
    dtype = DTYPES[short]
    if view and view[0] is not None:
        first, values = _view(view[0], values, name)
        return Span(str(key), dtype, values, first)
    return Span(str(key), dtype, values)


def named_dtype(kind: Any, name: str) -> torch.dtype:
    """Return the type of a tensor's values, by a reference such as to ``torch.uint16``.

    Raises:
        Malformed: It is no type of plain numbers.
    """
    known = kind.name if isinstance(kind, Global) else "unknown"
    if known in NAMED:
        return NAMED[known]
    raise unusable(known, name)


def unusable(kind: str, name: str) -> Malformed:
    """Return why a tensor of a type other than plain numbers is refused."""
    named = f"values of the type {kind[:24]!a}"
    what = next((text for start, text in _UNUSABLE.items() if kind.startswith(start)), named)
    return Malformed(
        f"cannot be used: its tensor {name} holds {what}",
        hint="Convert it to float32 where it was made, and save that.",
    )


def _layout(
    layout: tuple[Any, Any, Any], name: str
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    first, size, stride = layout
    whole = (
        _is_count(first)
        and all(isinstance(part, tuple | list) for part in (size, stride))
        and len(size) == len(stride) <= _MOST_DIMENSIONS
        and all(map(_is_count, (*size, *stride)))
    )
    if not whole or math.prod(n for n in size if n) > _LARGEST_SIZE:
        raise Malformed(
            f"is damaged: its tensor {name} has an impossible size, stride or offset "
            f"({_show_claim(size)}, {_show_claim(stride)}, {_show_claim(first)})"
        )
    return first, tuple(size), tuple(stride)


def _view(view: Any, values: int, name: str) -> tuple[int, int]:
    if isinstance(view, tuple) and len(view) == 3 and all(map(_is_count, view[1:])):
        first, count = view[1:]
        if first + count <= values:
            return first, count
    raise Malformed(f"is damaged: the storage of its tensor {name} is a view outside of another")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _times(size: tuple[int, ...]) -> str:
    return "×".join(map(str, size)) or "1"


def _show_claim(claim: Any) -> str:
    if isinstance(claim, tuple | list):
        return "×".join(_show_claim(part) for part in claim[:8]) or "none"
    if type(claim) is int:
        return str(claim) if abs(claim) < 1 << 63 else "a huge number"
    return type(claim).__name__
