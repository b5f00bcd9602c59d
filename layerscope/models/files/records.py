"""What a pickle's inert records mean: tensors, tables, modules; and whom they would have called."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from layerscope.models.contents import SEPARATOR
from layerscope.models.files.pickles import (
    Global,
    InertObject,
    Malformed,
    Pairs,
    PersistentId,
    Pickle,
)
from layerscope.models.files.storages import NAMED, Tensors, named_dtype, span_of

_DEEPEST = 64
_LONGEST_KEY = 1024
_KEYS = (str, float, bytes, type(None))
_NAMES_SHOWN = 400
_NAME_LENGTH = 200
_SCRIPTED = "__torch__."

_PLAIN = re.compile(
    r"collections\.(OrderedDict|Counter)"
    r"|torch\.(nn\.parameter\.Parameter|Size|Tensor|device|serialization\._get_layout)"
    r"|_codecs\.encode|builtins\.(set|frozenset|bytearray|complex)"
    r"|torch\.(bool|(u?int|b?float|complex|qu?int)\d\w*|per_(tensor|channel)_\w+)"
    r"|torch(\.cuda|\.storage)?\.\w+Storage"
    r"|torch\._utils\._rebuild_(parameter(_with_state)?|tensor(_v2|_v3)?|qtensor|sparse_tensor"
    r"|meta_tensor_no_storage|wrapper_subclass|device_tensor_from_(numpy|cpu_tensor))"
    r"|torch\._tensor\._rebuild_from_type_v2"
)
"""What torch itself writes for tensors and tables: the names that torch.load takes unasked."""

_SCRIPT_NAMES = re.compile(r"__torch__(\..*)?|torch\.jit\._pickle\.\w+", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Record(Mapping[str, Any]):
    """An object of a trusted class, as its attributes and items; the class was never imported.

    Examples:
        >>> Record("argparse.Namespace", (), {"epochs": 100})["epochs"]
        100
    """

    name: str
    arguments: tuple[Any, ...] = ()
    values_by_name: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


def require_trust(pickle: Pickle, trusted: Collection[str], scripted: bool = False) -> None:
    """Refuse a pickle that mentions more than plain tensors and the dotted names that are trusted.

    Of a scripted pickle, a TorchScript archive's, its own classes are records too.

    Raises:
        Malformed: With every other name, and the option that would trust them.
    """
    blocked = sorted(
        name
        for name in pickle.globals
        if not _PLAIN.fullmatch(name)
        and name not in trusted
        and not (scripted and _SCRIPT_NAMES.fullmatch(name))
    )
    if not blocked:
        return
    if len(blocked) > _NAMES_SHOWN or not all(map(_is_dotted, blocked)):
        names = ", ".join(map(ascii, blocked[:_NAMES_SHOWN]))[: 10 * _NAME_LENGTH]
        raise Malformed(
            f"names code that no program saves, and was not read: {names}",
            hint="Take the weights from somewhere else.",
        )
    raise Malformed(
        f"holds code beyond plain tensors: {', '.join(blocked)}",
        hint="It was not run. Save the state dict alone, or read those names as inert records: "
        f"--declare trust={','.join([*sorted(set(trusted) & pickle.globals), *blocked])}",
    )


def _is_dotted(name: str) -> bool:
    parts = name.split(".")
    plain = all(part.isidentifier() or part in {"<lambda>", "<locals>"} for part in parts)
    return plain and len(name) <= _NAME_LENGTH


class Interpreter:
    """Turns the inert records of one pickle into tensors, tables and plain values.

    Args:
        tensors: Makes the tensors.
        reads: How often the pickle was read from, which bounds what it can hold.
    """

    def __init__(self, tensors: Tensors, reads: int) -> None:
        self._tensors = tensors
        self._left = 16 * reads + 1024
        self._tensors_made: dict[int, tuple[InertObject, Tensor]] = {}
        self._open: set[int] = set()
        self.encoded: dict[tuple[str, ...], bytes] = {}

    def value(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """Return what a value of the pickle means.

        Raises:
            Malformed: It is nested without end, or holds a tensor that cannot be.
        """
        if isinstance(value, Global):
            return NAMED.get(value.name, value.name)
        if isinstance(value, PersistentId):
            return None  # a storage that no tensor lies over
        if not isinstance(value, list | tuple | Pairs | InertObject):
            return value
        if isinstance(value, Pairs):
            self._left -= len(value.pairs)
        elif not isinstance(value, InertObject):
            self._left -= len(value)
        self._left -= 1
        if len(self._open) > _DEEPEST:
            raise Malformed(
                f"is nested deeper than {_DEEPEST} tables: {_dotted(path[:4])}…",
                hint="Save the state dict alone.",
            )
        if self._left < 0:
            raise Malformed(
                "unfolds to far more than it holds: its tables contain each other",
                hint="Save the state dict alone.",
            )
        if id(value) in self._open:
            return self._refer_back(value, path)
        self._open.add(id(value))
        try:
            return self._unfold(value, path)
        finally:
            self._open.discard(id(value))

    def _refer_back(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, InertObject):
            return Record(value.name)  # a child's reference to its parent
        raise Malformed(
            f"has a table that contains itself: {_dotted(path[:8])}",
            hint="Save the state dict alone.",
        )

    def _unfold(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, Pairs):
            return self._table(value.pairs, path)
        if isinstance(value, InertObject):
            return self._object(value, path)
        entries = (self.value(entry, (*path, str(n))) for n, entry in enumerate(value))
        return tuple(entries) if isinstance(value, tuple) else list(entries)

    def _table(self, pairs: list[tuple[Any, Any]], path: tuple[str, ...]) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        for key, value in pairs:
            name = _key(key, path)
            table[name] = self.value(value, (*path, str(name)))
        return table

    def _object(self, made: InertObject, path: tuple[str, ...]) -> Any:
        parts = dict(_named_pairs(made.state))
        if {"_parameters", "_buffers", "_modules"} <= parts.keys():
            return self._module(parts, path)
        if made.name.startswith(_SCRIPTED):
            return self._script(made, path)
        interpretation = (
            _INTERPRETATIONS.get(made.name) if isinstance(made.callee, Global) else None
        )
        if interpretation is None:
            return self._record(made, path)
        try:
            return interpretation(self, made, path)
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise Malformed(
                f"is damaged: what it holds {_dotted(path)} is no {made.name}"
            ) from error

    def _record(self, made: InertObject, path: tuple[str, ...]) -> Any:
        values: dict[str, Any] = {}
        state = made.state
        if isinstance(state, tuple) and len(state) == 2:  # with slots
            for part in state:
                values |= self._state(part, path)
        else:
            values |= self._state(state, path)
        values |= {str(key): value for key, value in self._table(made.pairs, path).items()}
        values |= {
            str(n): self.value(entry, (*path, str(n))) for n, entry in enumerate(made.entries)
        }
        if made.name.startswith("omegaconf."):
            return values.get("_content", values.get("_val", Record(made.name, (), values)))
        arguments = self.value(made.arguments, (*path, "arguments"))
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        return Record(made.name, arguments, values)

    def _state(self, state: Any, path: tuple[str, ...]) -> dict[str, Any]:
        if isinstance(state, Pairs):
            return {str(key): value for key, value in self._table(state.pairs, path).items()}
        return {} if state is None else {"state": self.value(state, (*path, "state"))}

    def _module(self, parts: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """Return the state dict of a module that was saved whole."""
        transient = _texts(parts.get("_non_persistent_buffers_set"))
        state: dict[str, Any] = {}
        for group in ("_parameters", "_buffers"):
            for key, value in _named_pairs(parts.get(group)):
                if value is not None and key not in transient:
                    state[key] = self.value(value, (*path, key))
        for key, child in _named_pairs(parts.get("_modules")):
            below = None if child is None else self.value(child, (*path, key))
            if isinstance(below, dict):
                state |= {f"{key}.{name}": tensor for name, tensor in below.items()}
        return state

    def _script(self, made: InertObject, path: tuple[str, ...]) -> Any:
        """Return the state dict of a TorchScript module: its attributes that are tensors."""
        if not isinstance(made.state, Pairs):
            return Record(made.name)
        state: dict[str, Any] = {}
        for key, value in _named_pairs(made.state):
            if not isinstance(value, InertObject):
                continue
            below = self.value(value, (*path, key))
            if isinstance(below, Tensor):
                state[key] = below
            elif isinstance(below, dict):
                state |= {f"{key}.{name}": tensor for name, tensor in below.items()}
        return state

    def tensor(self, made: InertObject, path: tuple[str, ...]) -> Tensor:
        """Return the tensor of a call that would have rebuilt it over a storage."""
        # The record is kept with its tensor, so that no other can come to have its identity.
        if id(made) not in self._tensors_made:
            self._tensors_made[id(made)] = made, self._rebuilt(made, path)
        return self._tensors_made[id(made)][1]

    def _rebuilt(self, made: InertObject, path: tuple[str, ...]) -> Tensor:
        name = _dotted(path)
        arguments = made.arguments
        version = made.name.rpartition(".")[2]
        least = {"_rebuild_tensor": 4, "_rebuild_tensor_v2": 6, "_rebuild_tensor_v3": 7}[version]
        if not isinstance(arguments, tuple) or not least <= len(arguments) <= least + 1:
            raise Malformed(f"is damaged: its tensor {name} is described wrongly")
        stored, first, size, stride = arguments[:4]
        if not isinstance(stored, PersistentId):
            raise Malformed(f"is damaged: its tensor {name} lies in no storage")
        if any(value is True for extra in arguments[least:] for _, value in _pairs_of(extra)):
            raise Malformed(
                f"cannot be used: its tensor {name} is a conjugated or negated view",
                hint="Save a copy of it that is contiguous.",
            )
        span = span_of(stored.identity, name)
        dtype = named_dtype(arguments[6], name) if least == 7 else span.dtype
        size = self.value(size)
        return self._tensors.over(span, (first, size, stride), dtype, name)


def _key(key: Any, path: tuple[str, ...]) -> Any:
    if isinstance(key, Global):
        key = key.name
    if isinstance(key, str | bytes) and len(key) > _LONGEST_KEY:
        raise Malformed(
            f"has a key of {len(key)} letters {_dotted(path[:8])}",
            hint="Save the state dict alone.",
        )
    parts = key if isinstance(key, tuple) else (key,)
    if all(
        abs(part) < 1 << 63 if isinstance(part, int) else isinstance(part, _KEYS) for part in parts
    ):
        return key
    raise Malformed(
        f"has a key {_dotted(path[:8])} that is no name",
        hint="Save the state dict alone.",
    )


def _dotted(path: tuple[str, ...]) -> str:
    return ascii(SEPARATOR.join(path))[:_NAME_LENGTH] if path else "at its root"


def _named_pairs(table: Any) -> Iterator[tuple[str, Any]]:
    for key, value in _pairs_of(table):
        if isinstance(key, str):
            yield _key(key, ()), value


def _pairs_of(table: Any) -> list[tuple[Any, Any]]:
    if isinstance(table, Pairs):
        return table.pairs
    if isinstance(table, InertObject) and table.name == "collections.OrderedDict":
        return table.pairs
    return []


def _texts(collection: Any) -> set[str]:
    if isinstance(collection, InertObject) and isinstance(collection.arguments, tuple):
        collection = next(iter(collection.arguments), ())
    items = collection if isinstance(collection, list | tuple) else ()
    return {item for item in items if isinstance(item, str)}


def _only(made: InertObject) -> Any:
    (argument,) = made.arguments
    return argument


def _ordered(interpreter: Interpreter, made: InertObject, path: tuple[str, ...]) -> Any:
    pairs = list(made.pairs)
    if made.arguments:
        given = _only(made)
        listed = given.pairs if isinstance(given, Pairs) else [tuple(pair) for pair in given]
        if any(len(pair) != 2 for pair in listed):
            raise ValueError("a dictionary is made of pairs")
        pairs = [*listed, *pairs]
    return interpreter._table(pairs, path)


def _parameter(interpreter: Interpreter, made: InertObject, path: tuple[str, ...]) -> Any:
    tensor = interpreter.value(made.arguments[0], path)
    if not isinstance(tensor, Tensor):
        raise ValueError("a parameter is a tensor")
    return tensor


def _subclass_tensor(interpreter: Interpreter, made: InertObject, path: tuple[str, ...]) -> Any:
    function, _, arguments, _ = made.arguments
    tensor = interpreter.value(InertObject(function, arguments), path)
    if not isinstance(tensor, Tensor):
        raise ValueError("an instance of a tensor's subclass is a tensor")
    return tensor


def _convert_dtype(interpreter: Interpreter, made: InertObject, path: tuple[str, ...]) -> Any:
    tensor, dtype = interpreter.value(made.arguments[0], path), made.arguments[1]
    return tensor.to(named_dtype(dtype, _dotted(path)))


def _sequence(interpreter: Interpreter, made: InertObject, path: tuple[str, ...]) -> Any:
    return tuple(interpreter.value(_only(made), path)) if made.arguments else tuple(made.entries)


def _list(interpreter: Interpreter, made: InertObject, path: tuple[str, ...]) -> Any:
    return [
        *(interpreter.value(_only(made), path) if made.arguments else ()),
        *interpreter.value(made.entries),
    ]


def _first(interpreter: Interpreter, made: InertObject, path: tuple[str, ...]) -> Any:
    return interpreter.value(made.arguments[0], path)


def _encode_text(interpreter: Interpreter, made: InertObject, path: tuple[str, ...]) -> Any:
    text, *encoding = made.arguments
    if not isinstance(text, str) or encoding not in (["latin1"], ["latin-1"], ["utf-8"], []):
        raise ValueError("no text, or an unknown encoding")
    # One text may be asked for as often as there are bytes: its own are made once.
    key = (text, *encoding)
    if key not in interpreter.encoded:
        interpreter.encoded[key] = text.encode(*encoding)
    return interpreter.encoded[key]


def _as_text(interpreter: Interpreter, made: InertObject, path: tuple[str, ...]) -> Any:
    if len(made.arguments) > 2 or not all(isinstance(p, str | int | float) for p in made.arguments):
        raise ValueError("a name and a number at most")
    text = ":".join(map(str, made.arguments))
    if len(text) > _LONGEST_KEY:
        raise ValueError("too long a name")
    return text


def _refuse(what: str) -> Callable[[Interpreter, InertObject, tuple[str, ...]], Any]:
    def refuse(_: Interpreter, __: InertObject, path: tuple[str, ...]) -> Any:
        raise Malformed(
            f"cannot be used: its tensor {_dotted(path)} is {what}",
            hint="Convert it to a plain float32 tensor where it was made, and save that.",
        )

    return refuse


_INTERPRETATIONS: dict[str, Callable[[Interpreter, InertObject, tuple[str, ...]], Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _ordered,
    "torch._utils._rebuild_tensor": Interpreter.tensor,
    "torch._utils._rebuild_tensor_v2": Interpreter.tensor,
    "torch._utils._rebuild_tensor_v3": Interpreter.tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass_tensor,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _convert_dtype,
    "torch._utils._rebuild_device_tensor_from_numpy": _refuse("an array of another library"),
    "torch._utils._rebuild_qtensor": _refuse("quantised"),
    "torch._utils._rebuild_sparse_tensor": _refuse("sparse"),
    "torch._utils._rebuild_meta_tensor_no_storage": _refuse("on the meta device, without values"),
    "torch._utils._rebuild_wrapper_subclass": _refuse("of a subclass that wraps others"),
    "torch.nn.parameter.Parameter": _refuse("of a torch before 0.4"),
    "torch.Tensor": _refuse("of a torch before 0.4"),
    "torch.Size": _sequence,
    "torch.device": _as_text,
    "torch.serialization._get_layout": _as_text,
    "_codecs.encode": _encode_text,
    "builtins.set": _list,
    "builtins.frozenset": _list,
    "builtins.bytearray": _first,
    "builtins.complex": _as_text,
    "torch.jit._pickle.build_intlist": _list,
    "torch.jit._pickle.build_doublelist": _list,
    "torch.jit._pickle.build_boollist": _list,
    "torch.jit._pickle.build_tensorlist": _list,
    "torch.jit._pickle.restore_type_tag": _first,
}
