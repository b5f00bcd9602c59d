"""Reading a pickle as inert records: nothing that it names is imported, and nothing is called."""

from __future__ import annotations

import pickle
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from layerscope.errors import CheckpointError

MAX_OPERATIONS = 8_000_000
"""Far above any checkpoint's: a tensor takes some forty."""

_RENAMED_SINCE = 3
_LONGEST_LINE = 1 << 16


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


@dataclass(eq=False)
class Made:
    """What a pickle would have made by calling something, and has filled since."""

    callee: Any
    arguments: Any
    state: Any = None
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    entries: list[Any] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Dotted name of what would have been called."""
        callee = self.callee
        while isinstance(callee, Made):
            callee = callee.callee
        return callee.name if isinstance(callee, Global) else type(callee).__name__


@dataclass(frozen=True, eq=False)
class Outside:
    """A reference to what lies outside the pickle: a storage's type, key and size."""

    identity: Any


@dataclass(frozen=True)
class Pickle:
    """What one pickle holds."""

    value: Any
    globals: frozenset[str]
    """Dotted names of every Python object that it mentions, used or not."""
    outside: tuple[Outside, ...]
    operations: int
    end: int
    """Where in the data the pickle ends."""


def read_pickle(data: Bytes, start: int = 0, end: int | None = None) -> Pickle:
    """Return what a pickle holds, as plain values and inert records.

    Memory is bounded by the bytes that are there: no length or index is believed.

    Args:
        data: Holds the pickle.
        start: Where it begins.
        end: Where it must have ended.

    Raises:
        Malformed: The data are no whole pickle.
    """
    window = _Window(data, start, len(data) if end is None else end)
    machine = _Machine(window)
    try:
        value = machine.run()
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        reason = str(error).split("\n", 1)[0].rstrip(".") or "it is incomplete"
        raise Malformed(f"is damaged or truncated: its pickle cannot be read, {reason}") from error
    return Pickle(
        value,
        frozenset(machine.globals),
        tuple(machine.outside),
        machine.operations,
        window.tell(),
    )


class _Window:
    """A file object over some of the data, which never returns more than is there."""

    def __init__(self, data: Bytes, start: int, end: int) -> None:
        self._data, self.start, self.end, self._position = data, start, end, start

    def read(self, count: int) -> bytes:
        return self._upto(min(self._position + count, self.end))

    def readline(self) -> bytes:
        limit = min(self._position + _LONGEST_LINE, self.end)
        found = self._data.find(b"\n", self._position, limit)
        return self._upto(limit if found < 0 else found + 1)

    def tell(self) -> int:
        return self._position

    def _upto(self, end: int) -> bytes:
        start, self._position = self._position, end
        return self._data[start:end]


class _Machine:
    """The stack machine of the pickle protocols 0 to 5, without calls."""

    def __init__(self, window: _Window) -> None:
        self._window = window
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._protocol = 0
        self.globals: set[str] = set()
        self.outside: list[Outside] = []
        self.operations = 0

    def run(self) -> Any:
        for opcode, argument, _ in pickletools.genops(cast(Any, self._window)):
            self.operations += 1
            if self.operations > MAX_OPERATIONS:
                raise ValueError(f"it has more than {MAX_OPERATIONS} operations")
            name = opcode.name
            if name in _VALUES:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name == "STOP":
                break
            else:
                operation = _OPERATIONS.get(name)
                if operation is None:
                    raise ValueError(f"it uses {name}")
                operation(self, argument)
        return self._stack.pop()

    def proto(self, version: int) -> None:
        if version > pickle.HIGHEST_PROTOCOL:
            raise ValueError(f"it is of the unknown protocol {version}")
        self._protocol = version

    def frame(self, length: int) -> None:
        if length > self._window.end - self._window.tell():
            raise ValueError("a frame is longer than the file")

    def push_global(self, module: str, name: str) -> None:
        if self._protocol < _RENAMED_SINCE:
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            else:
                module = IMPORT_MAPPING.get(module, module)
        self.globals.add(f"{module}.{name}")
        self._stack.append(Global(f"{module}.{name}"))

    def global_(self, argument: str) -> None:
        # The two names come parted by a blank; a module's own name has none.
        module, _, name = argument.partition(" ")
        self.push_global(module, name)

    def stack_global(self, _: None) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("a global's name is no text")
        self.push_global(module, name)

    def inst(self, argument: str) -> None:
        arguments = tuple(self._marked())
        self.global_(argument)
        self._stack.append(Made(self._stack.pop(), arguments))

    def obj(self, _: None) -> None:
        callee, *arguments = self._marked()
        self._stack.append(Made(callee, tuple(arguments)))

    def call(self, _: None) -> None:
        arguments, callee = self._stack.pop(), self._stack.pop()
        self._stack.append(Made(callee, arguments))

    def newobj_ex(self, _: None) -> None:
        named, arguments, callee = (self._stack.pop() for _ in range(3))
        self._stack.append(Made(callee, (arguments, named)))

    def build(self, _: None) -> None:
        state, made = self._stack.pop(), self._stack.pop()
        # Where a state is set on what is no object, it is kept beside it, as the object's.
        if not isinstance(made, Made) or made.state is not None:
            made = Made(made, ())
        made.state = state
        self._stack.append(made)

    def persistent(self, argument: str | None) -> None:
        identity = self._stack.pop() if argument is None else argument
        if isinstance(identity, tuple) and len(identity) > 1 and identity[0] == "module":
            # torch before 1.6 kept a class's source beside it.
            self._stack.append(identity[1])
            return
        self.outside.append(Outside(identity))
        self._stack.append(self.outside[-1])

    def mark(self, _: None) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _marked(self) -> list[Any]:
        marked, self._stack = self._stack, self._below.pop()
        return marked

    def pop(self, _: None) -> None:
        # Where a mark is on top of the stack, it is the mark that goes.
        if self._stack:
            self._stack.pop()
        else:
            self._marked()

    def pop_mark(self, _: None) -> None:
        self._marked()

    def dup(self, _: None) -> None:
        self._stack.append(self._stack[-1])

    def put(self, index: int) -> None:
        # Whatever is numbered was pushed by an operation of its own.
        if not 0 <= index <= self._window.tell() - self._window.start:
            raise ValueError(f"it numbers an object {index}, more than it can have")
        self._memo[index] = self._stack[-1]

    def memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError(f"it asks for an object {index} that it has not made")
        self._stack.append(self._memo[index])

    def empty_list(self, _: None) -> None:
        self._stack.append([])

    def empty_dict(self, _: None) -> None:
        self._stack.append(Pairs())

    def list_(self, _: None) -> None:
        marked = self._marked()
        self._stack.append(marked)

    def dict_(self, _: None) -> None:
        marked = self._marked()
        self._stack.append(Pairs(_paired(marked)))

    def tuple_(self, _: None) -> None:
        marked = self._marked()
        self._stack.append(tuple(marked))

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise ValueError("a tuple has fewer entries than it says")
        items = tuple(self._stack[len(self._stack) - count :])
        self._stack[len(self._stack) - count :] = [items]

    def append(self, _: None) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: None) -> None:
        self._extend(self._marked())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Made):
            target.entries.extend(items)
        elif isinstance(target, list):
            target.extend(items)
        else:
            raise ValueError("it appends to what is no list")

    def setitem(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def setitems(self, _: None) -> None:
        self._set(self._marked())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, Pairs | Made):
            raise ValueError("it sets a key of what is no dictionary")
        target.pairs.extend(_paired(items))


def _paired(items: list[Any]) -> list[tuple[Any, Any]]:
    if len(items) % 2:
        raise ValueError("a dictionary has a key without value")
    return list(zip(items[::2], items[1::2], strict=True))


_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE")
_TEXTS_SINCE_4 = ("SHORT_BINUNICODE", "BINUNICODE8")
_BLOBS = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset((*_NUMBERS, *_TEXTS, *_TEXTS_SINCE_4, *_BLOBS))


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.tuple_of(count)


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.proto,
    "FRAME": _Machine.frame,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "INST": _Machine.inst,
    "OBJ": _Machine.obj,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.newobj_ex,
    "BUILD": _Machine.build,
    "PERSID": _Machine.persistent,
    "BINPERSID": _Machine.persistent,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.dup,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_SET": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "EMPTY_TUPLE": _tuple(0),
    "LIST": _Machine.list_,
    "DICT": _Machine.dict_,
    "TUPLE": _Machine.tuple_,
    "FROZENSET": _Machine.tuple_,
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
}
