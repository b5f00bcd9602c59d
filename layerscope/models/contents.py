"""What a checkpoint file holds: nested tables of tensors, each tensor with its key in the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from layerscope.errors import CheckpointError

Rules = Sequence[tuple[str, str]]
"""Regular expressions with their replacements; the first that matches a key renames it."""

SEPARATOR = "/"
WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes that DistributedDataParallel, torch.compile and Lightning modules put on every key."""

_CONTAINERS = ("state_dict", "model_state_dict", "model")


class MissingTensorError(CheckpointError, KeyError):
    """A tensor that a family's files always hold is not in this one."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The file lacks the tensor {name}.",
            hint="It is incomplete, or of another family than it was taken for.",
        )


class Weights(Mapping[str, Tensor]):
    """Tensors by a name, each of which remembers the keys of the file that it came from.

    Args:
        tensors: By name.
        origins: By name: the file's keys, several where tensors were merged. A name that is not
            there is its own key.

    Examples:
        >>> import torch
        >>> weights = Weights({"module.fc.0.weight": torch.zeros(2, 3)})
        >>> head = weights.under("module.fc.")
        >>> list(head), head.origins["0.weight"]
        (['0.weight'], ('module.fc.0.weight',))
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor] | None = None,
        origins: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._tensors = dict(tensors or {})
        known = origins or {}
        self.origins: dict[str, tuple[str, ...]] = {
            name: known.get(name, (name,)) for name in self._tensors
        }

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._tensors[name]
        except KeyError:
            raise MissingTensorError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor, by name."""
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def has(self, *patterns: str) -> bool:
        """Return whether each regular expression matches the beginning of some name."""
        return all(any(re.match(pattern, name) for name in self._tensors) for pattern in patterns)

    def under(self, prefix: str) -> Weights:
        """Return the tensors whose names begin with the prefix, named without it."""
        return self._under_names(
            {name: name.removeprefix(prefix) for name in self if name.startswith(prefix)}
        )

    def within(self, prefix: str) -> Weights:
        """Return all tensors, the prefix set before every name."""
        return self._under_names({name: prefix + name for name in self})

    def without(self, *prefixes: str) -> Weights:
        """Return the tensors whose names begin with none of the prefixes."""
        return self._under_names({name: name for name in self if not name.startswith(prefixes)})

    def only(self, *prefixes: str) -> Weights:
        """Return the tensors whose names begin with one of the prefixes."""
        return self._under_names({name: name for name in self if name.startswith(prefixes)})

    def numbers(self, prefix: str = "") -> list[int]:
        """Return in order the numbers behind a prefix: 0 and 2 of ``fc.0.bias``, ``fc.2.bias``."""
        found = (re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in self)
        return sorted({int(match[1]) for match in found if match})

    def renamed(self, rules: Rules) -> Weights:
        """Return all tensors, each renamed by the first rule whose pattern is found in its name.

        Raises:
            CheckpointError: Two tensors would get one name.
        """
        names = {name: _renamed(name, rules) for name in self}
        if len(set(names.values())) < len(names):
            seen: set[str] = set()
            twice = next(new for new in names.values() if new in seen or seen.add(new))  # type: ignore[func-returns-value]
            raise CheckpointError(
                f"Two tensors of the file stand for {twice}.",
                hint="The file mixes two layouts; save the state dict of one network alone.",
            )
        return self._under_names(names)

    def with_tensor(self, name: str, tensor: Tensor, origins: Sequence[str]) -> Weights:
        """Return all tensors and one more, made from those of the given names in this mapping."""
        sources = tuple(key for origin in origins for key in self.origins[origin])
        return Weights(self._tensors | {name: tensor}, self.origins | {name: sources})

    def mapped(self, pattern: str, change: Callable[[Tensor], Tensor]) -> Weights:
        """Return all tensors, those whose names the pattern matches in full being changed."""
        tensors = {
            name: change(tensor) if re.fullmatch(pattern, name) else tensor
            for name, tensor in self._tensors.items()
        }
        return Weights(tensors, self.origins)

    def joined(self, other: Weights) -> Weights:
        """Return the tensors of both; a name that both have is the other's."""
        return Weights(self._tensors | other._tensors, self.origins | other.origins)

    def _under_names(self, names: Mapping[str, str]) -> Weights:
        return Weights(
            {new: self._tensors[old] for old, new in names.items()},
            {new: self.origins[old] for old, new in names.items()},
        )


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        new, count = re.subn(pattern, replacement, name, count=1)
        if count:
            return new
    return name


@dataclass(frozen=True)
class Contents:
    """The nested mappings of a checkpoint file: tensors, and plain values beside them."""

    root: Mapping[str, Any]
    title: str = "the file"
    """What the file is called in messages: its name."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """By file name: what the JSON files beside it say, such as ``config.json``."""

    file: Path | None = None
    """Where the contents were read from."""

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the file by its full key, levels parted by ``/``."""
        return dict(_tensors_below(self.root, ""))

    def names(self) -> frozenset[str]:
        """Return the top-level names."""
        return frozenset(map(str, self.root))

    def value(self, *path: str, default: Any = None) -> Any:
        """Return what lies at a path of names, or the default."""
        found: Any = self.root
        for name in path:
            if not isinstance(found, Mapping) or name not in found:
                return default
            found = found[name]
        return found

    def table(self, *path: str) -> Weights:
        """Return the tensors below a path of names, as they are called there; perhaps none."""
        found = self.value(*path) if path else self.root
        if not isinstance(found, Mapping):
            return Weights()
        prefix = "".join(name + SEPARATOR for name in path)
        below = dict(_tensors_below(found, ""))
        return Weights(below, {name: (prefix + name,) for name in below})

    @cached_property
    def path(self) -> tuple[str, ...]:
        """Where the state dict lies: in one of the usual containers, or at the top level."""
        if any(isinstance(value, Tensor) for value in self.root.values()):
            return ()
        for name in _CONTAINERS:
            if isinstance(self.root.get(name), Mapping):
                return (name,)
        return ()

    @cached_property
    def raw(self) -> Weights:
        """The state dict as it lies in its usual container, wrappers' prefixes and all."""
        table = self.table(*self.path)
        return Weights(
            {name: tensor for name, tensor in table.items() if SEPARATOR not in name},
            table.origins,
        )

    @cached_property
    def state_dict(self) -> Weights:
        """The state dict out of its usual container, without prefixes that all keys share."""
        return unwrapped(self.raw)


def unwrapped(
    table: Weights, wrappers: Sequence[str] = WRAPPERS, wanted: Collection[str] = ()
) -> Weights:
    """Return the table without wrappers' prefixes, as long as every name begins with one.

    Args:
        table: With names such as ``module.fc.weight``.
        wrappers: The prefixes.
        wanted: Names at which to stop, once the table has one of them.

    Examples:
        >>> import torch
        >>> list(unwrapped(Weights({"module._orig_mod.fc.weight": torch.zeros(1)})))
        ['fc.weight']
    """
    while table and not any(name in wanted for name in table):
        shared = [w for w in wrappers if all(name.startswith(w) for name in table)]
        if not shared:
            break
        table = table.under(shared[0])
    return table


def _tensors_below(node: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in node.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _tensors_below(value, f"{prefix}{name}{SEPARATOR}")
        elif isinstance(value, list | tuple):
            yield from _tensors_below(dict(enumerate(value)), f"{prefix}{name}{SEPARATOR}")
