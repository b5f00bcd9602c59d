"""Reading a pickle as inert records: nothing that it names is imported, and nothing is called."""

from __future__ import annotations

import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from dataclasses import dataclass, field
from typing import Any, Protocol

from layerscope.errors import CheckpointError

MAX_READS = 8_000_000
"""Far above any checkpoint's: a tensor takes some fifty."""

_RENAMED_SINCE = 3
_LONGEST_LINE = 1 << 16
_LONGEST_NAME = 1 << 11


class Malformed(CheckpointError):
    """A file that is not read any further.

    Args:
        phrase: What the file is or does, to follow its name: ``"is damaged: its …"``.
        hint: What to do about it.
    """

    def __init__(self, phrase: str, hint: str = "Download or write it again.") -> None:
        super().__init__(f"The file {phrase}.", hint=hint)
        self.phrase = phrase


class Bytes(Protocol):
    """What can be sliced and searched without being read whole: bytes, or a mapped file."""

    def __len__(self) -> int: ...
    def __getitem__(self, where: slice, /) -> bytes: ...
    def find(self, what: bytes, start: int, end: int, /) -> int: ...


@dataclass(frozen=True, eq=False)
class Global:
    """The dotted name of a Python object that a pickle mentions."""

    name: str


@dataclass(eq=False)
class Pairs:
    """A dictionary as its keys and values in the order in which they were set."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs.append((key, value))


@dataclass(eq=False)
class InertObject:
    """What a pickle would have made by calling something, and has filled since."""

    callee: Any
    arguments: Any
    state: Any = None
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    entries: list[Any] = field(default_factory=list)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs.append((key, value))

    def append(self, entry: Any) -> None:
        """Add an entry, as to a list."""
        self.entries.append(entry)

    def extend(self, entries: list[Any]) -> None:
        """Add entries, as to a list."""
        self.entries.extend(entries)

    @property
    def name(self) -> str:
        """Dotted name of what would have been called."""
        callee = self.callee
        while isinstance(callee, InertObject):
            callee = callee.callee
        return callee.name if isinstance(callee, Global) else type(callee).__name__


@dataclass(frozen=True, eq=False)
class PersistentId:
    """A reference to what lies outside the pickle: a storage's type, key and size."""

    identity: Any


@dataclass(frozen=True)
class Pickle:
    """What one pickle holds."""

    value: Any
    globals: frozenset[str]
    """Dotted names of every Python object that it mentions, used or not."""
    outside: tuple[PersistentId, ...]
    reads: int
    """How often it was read from, which bounds what it can hold."""
    end: int
    """Where in the data the pickle ends."""


def read_pickle(data: Bytes, start: int = 0) -> Pickle:
    """Return what a pickle holds, as plain values and inert records.

    Memory is bounded by the bytes that are there: no length or index is believed.

    Raises:
        Malformed: The data are no whole pickle.
    """
    window = _Window(data, start)
    unpickler = _InertUnpickler(window)
    try:
        value = unpickler.load()
    except _UNREADABLE as error:
        reason = str(error).split("\n", 1)[0].rstrip(".") or "it is incomplete"
        reason = f"it uses the operation {reason}" if isinstance(error, KeyError) else reason
        raise Malformed(f"is damaged or truncated: its pickle cannot be read, {reason}") from error
    globals_, outside = frozenset(unpickler.globals), tuple(unpickler.outside)
    return Pickle(value, globals_, outside, window.reads, window.position)


_UNREADABLE = (
    AttributeError,
    EOFError,
    LookupError,
    OverflowError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)
"""What the standard library's unpickler raises of bytes that are no pickle."""


class _Window:
    """A file object over the data from a place on, which never returns less than was asked for."""

    def __init__(self, data: Bytes, start: int) -> None:
        self._data, self.position, self.reads = data, start, 0

    def read(self, count: int) -> bytes:
        self.require(count)
        return self._advance(self.position + count)

    def readline(self) -> bytes:
        limit = min(self.position + _LONGEST_LINE, len(self._data))
        found = self._data.find(b"\n", self.position, limit)
        if found < 0:
            raise EOFError("a line has no end")
        return self._advance(found + 1)

    def require(self, count: int) -> None:
        if count > len(self._data) - self.position:
            raise EOFError(f"it ends where {count} more bytes should be")

    def _advance(self, end: int) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise ValueError(f"it has more than {MAX_READS} parts")
        start, self.position = self.position, end
        return self._data[start:end]


class _Numbered(dict[int, Any]):
    """The objects that a pickle numbers, of which it has no more than bytes."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, index: int, value: Any) -> None:
        if index > self._most:
            raise ValueError(f"it numbers an object {index}, more than it can have")
        super().__setitem__(index, value)


_PythonUnpickler: Any = pickle._Unpickler
"""Its methods are no part of its published types."""


class _InertUnpickler(_PythonUnpickler):  # type: ignore[misc]
    """The standard library's unpickler in Python, with every operation that acts made inert.

    Its C twin is no use: that one reserves memory for whatever index a pickle names.
    """

    dispatch = _PythonUnpickler.dispatch.copy()

    def __init__(self, window: _Window) -> None:
        # What Python 2 wrote as text may be bytes, such as a NumPy scalar's.
        super().__init__(window, encoding="latin-1")
        self._window = window
        self.memo = _Numbered(len(window._data))
        self.globals: set[str] = set()
        self.outside: list[PersistentId] = []

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < _RENAMED_SINCE:
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            else:
                module = IMPORT_MAPPING.get(module, module)
        dotted = f"{module}.{name}"
        if len(dotted) > _LONGEST_NAME:
            # Two texts that are numbered once could make as many long names as there are bytes.
            raise ValueError(f"it mentions a name of {len(dotted)} letters")
        self.globals.add(dotted)
        return Global(dotted)

    def persistent_load(self, identity: Any) -> Any:
        if isinstance(identity, tuple) and len(identity) > 1 and identity[0] == "module":
            return identity[1]  # torch before 1.6 kept a class's source beside it
        self.outside.append(PersistentId(identity))
        return self.outside[-1]

    def get_extension(self, code: int) -> None:
        raise ValueError(f"it uses the extension {code}")

    def _instantiate(self, callee: Any, arguments: list[Any]) -> None:
        self._push(callee, tuple(arguments))

    def _push(self, callee: Any, arguments: Any, state: Any = None) -> None:
        self.stack.append(InertObject(callee, arguments, state))

    def call(self) -> None:
        arguments, callee = self.stack.pop(), self.stack.pop()
        self._push(callee, arguments)

    def call_with_names(self) -> None:
        named, arguments, callee = (self.stack.pop() for _ in range(3))
        self._push(callee, (arguments, named))

    def build(self) -> None:
        state, built = self.stack.pop(), self.stack.pop()
        if isinstance(built, InertObject) and built.state is None:
            built.state = state
            self.stack.append(built)
        else:
            # Where a state is set on what is no object, it is kept beside it, as the object's.
            self._push(built, (), state)

    def empty_dict(self) -> None:
        self.stack.append(Pairs())

    def filled_dict(self) -> None:
        items = self.pop_mark()
        if len(items) % 2:
            raise ValueError("a dictionary has a key without value")
        self.stack.append(Pairs(list(zip(items[::2], items[1::2], strict=True))))

    def byte_array(self) -> None:
        self.stack.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def frame(self) -> None:
        self._window.require(int.from_bytes(self.read(8), "little"))


_OPERATIONS = {
    pickle.REDUCE: _InertUnpickler.call,
    pickle.NEWOBJ: _InertUnpickler.call,
    pickle.NEWOBJ_EX: _InertUnpickler.call_with_names,
    pickle.BUILD: _InertUnpickler.build,
    pickle.EMPTY_DICT: _InertUnpickler.empty_dict,
    pickle.DICT: _InertUnpickler.filled_dict,
    pickle.EMPTY_SET: _InertUnpickler.load_empty_list,
    pickle.ADDITEMS: _InertUnpickler.load_appends,
    pickle.FROZENSET: _InertUnpickler.load_tuple,
    pickle.BYTEARRAY8: _InertUnpickler.byte_array,
    pickle.FRAME: _InertUnpickler.frame,
}
del _InertUnpickler.dispatch[pickle.READONLY_BUFFER[0]]
_InertUnpickler.dispatch |= {opcode[0]: operation for opcode, operation in _OPERATIONS.items()}
