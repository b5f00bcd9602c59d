"""One generic registry: decorators, entry points, nearest names on a miss, no overwriting."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, TypeVar

from layerscope.errors import DuplicateNameError, LayerScopeError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects of one kind, filled by decoration and loaded on the first look-up.

    Args:
        kind: The singular noun used in messages, such as ``"task"``.
        package: A package whose modules register themselves when imported.
        group: The entry-point group through which other distributions add their own.

    Examples:
        >>> shapes: Registry[type] = Registry("shape")
        >>> @shapes.register("square")
        ... class Square: ...
        >>> shapes["square"].__name__
        'Square'
    """

    def __init__(self, kind: str, *, package: str | None = None, group: str | None = None) -> None:
        self.kind = kind
        self._package = package
        self._group = group
        self._items: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its object under ``name``.

        Raises:
            DuplicateNameError: The name is taken by another object.
        """

        def decorate(item: T) -> T:
            self.add(name, item)
            return item

        return decorate

    def add(self, name: str, item: T) -> None:
        """File ``item`` under ``name``.

        Raises:
            DuplicateNameError: The name is taken by another object.
        """
        if name in self._items:
            raise DuplicateNameError(
                f"Two {self.kind} definitions are called {name!r}.",
                hint="Rename one of them; nothing was overwritten.",
            )
        self._items[name] = item

    def names(self) -> tuple[str, ...]:
        """Return every registered name, sorted."""
        self._load()
        return tuple(sorted(self._items))

    def items(self) -> tuple[tuple[str, T], ...]:
        """Return every ``(name, object)`` pair, sorted by name."""
        return tuple((name, self._items[name]) for name in self.names())

    def __getitem__(self, name: str) -> T:
        self._load()
        try:
            return self._items[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._items) from None

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        if self._package is not None:
            _import_modules(self._package)
        if self._group is not None:
            for point in entry_points(group=self._group):
                item = point.load()
                if self._items.get(point.name) is not item:
                    self.add(point.name, item)


def _import_modules(package: str) -> None:
    root = importlib.import_module(package)
    for module in pkgutil.iter_modules(root.__path__):
        importlib.import_module(f"{package}.{module.name}")


def load_plugin(path: Path) -> None:
    """Run a scratch file so that its decorators register what it defines.

    Args:
        path: A Python file of the user's own, as given to ``--plugin``.

    Raises:
        LayerScopeError: The file is missing or is not a Python module.
    """
    spec = importlib.util.spec_from_file_location(f"layerscope_plugin_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise LayerScopeError(
            f"The plug-in {str(path)!r} is not a Python file.",
            hint="Give the path of a .py file that registers something.",
        )
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
