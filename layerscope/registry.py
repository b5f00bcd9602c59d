"""One generic registry: decorators, entry points, nearest names on a miss, no overwriting.

What a user's own file registers is a plug-in. It runs as a module below this one, under a name that
every process of a run can import, so that what it defines may be pickled.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import spec_from_file_location
from multiprocessing import parent_process
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar

from layerscope.errors import DuplicateNameError, LayerScopeError, UnknownNameError

T = TypeVar("T")

PLUGINS = "LAYERSCOPE_PLUGINS"
"""The environment variable that tells worker processes the plug-ins' files by module name."""
__path__: list[str] = []
# A module with a path may have modules below it: a worker that unpickles what a plug-in defines
# imports this module first, and with it the finder of plug-ins.

Record = list[tuple["Registry[Any]", str]]

_recorded: Record | None = None
"""What the plug-in that is running has registered; None while none is."""


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
        if _recorded is not None:
            self._load()  # a plug-in learns at once that a name is taken
        if name in self._items:
            raise DuplicateNameError(
                f"Two {self.kind} definitions are called {name!r}.",
                hint="Rename one of them; nothing was overwritten.",
            )
        self._items[name] = item
        if _recorded is not None:
            _recorded.append((self, name))

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
        with _recording(None):  # what comes with a package is no plug-in's
            if self._package is not None:
                root = importlib.import_module(self._package)
                for module in pkgutil.iter_modules(root.__path__, f"{self._package}."):
                    importlib.import_module(module.name)
            if self._group is not None:
                for point in entry_points(group=self._group):
                    item = point.load()
                    if self._items.get(point.name) is not item:
                        self.add(point.name, item)
            if parent_process() is not None:
                for path in _files().values():
                    load_plugin(Path(path))


class Plugin(NamedTuple):
    """A file or a folder of the user's own that ran."""

    module: ModuleType
    registered: Record

    def names(self, registry: Registry[Any]) -> list[str]:
        """Return what it registered in one registry, sorted."""
        return sorted(name for owner, name in self.registered if owner is registry)


_loaded: dict[str, Plugin] = {}
"""By module name: every plug-in that ran."""


def load_plugin(path: Path) -> Plugin:
    """Run a user's own file, so that its decorators register what it defines; once a process.

    It may be written as any module of a package is. A folder with an ``__init__.py`` is a plug-in
    too, and its modules import one another by ``from .other import name``.

    Args:
        path: As given to ``--plugin``.

    Raises:
        LayerScopeError: It is missing, is no Python, or fails; then nothing of it stays registered.
    """
    file = path / "__init__.py" if path.is_dir() else path
    if not file.is_file() or file.suffix != ".py":
        raise LayerScopeError(
            f"The plug-in {str(path)!r} is not a Python file.",
            hint="Give the path of a .py file that registers something.",
        )
    file = file.resolve()
    # Two folders may hold plug-ins of one name; the path tells them apart, in any process.
    stem = file.parent.name if file.stem == "__init__" else file.stem
    name = f"{__name__}.{re.sub(r'[^0-9A-Za-z_]', '_', stem)}_{zlib.crc32(os.fsencode(file)):08x}"
    if name not in _loaded:
        _loaded[name] = _run(name, file, path)
    return _loaded[name]


def _run(name: str, file: Path, path: Path) -> Plugin:
    before = os.environ.get(PLUGINS, "[]")
    os.environ[PLUGINS] = json.dumps([*_files().items(), (name, str(file))])
    recorded: Record = []
    try:
        with _recording(recorded):
            return Plugin(importlib.import_module(name), recorded)
    except (Exception, SystemExit) as error:
        os.environ[PLUGINS] = before
        for registry, item in recorded:
            del registry._items[item]
        for left in [each for each in sys.modules if f"{each}.".startswith(f"{name}.")]:
            del sys.modules[left]
        raise _failure(error, file, path) from error


def _failure(error: BaseException, file: Path, path: Path) -> LayerScopeError:
    """Return the error of a plug-in that failed: which line of the user's own, and why."""
    own = file.parent if path.is_dir() else file
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    lines = [(at, line) for at, line in places if Path(at) == own or own in Path(at).parents]
    at, line = lines[-1] if lines else (str(file), None)
    shown = str(path / Path(at).relative_to(own)) if path.is_dir() else str(path)
    where = f"{shown!r} fails" + (f" in line {line}" if line else "")
    hint = "Mend it; layerscope --debug shows the whole traceback."
    if isinstance(error, LayerScopeError):
        return LayerScopeError(f"The plug-in {where}: {error.message}", hint=error.hint or hint)
    words = error.msg if isinstance(error, SyntaxError) else str(error)
    reason = ": ".join(filter(None, (type(error).__name__, " ".join(words.split()))))
    return LayerScopeError(f"The plug-in {where}: {reason.rstrip('.')}.", hint=hint)


def _files() -> dict[str, str]:
    return dict(json.loads(os.environ.get(PLUGINS, "[]")))


@contextmanager
def _recording(record: Record | None) -> Iterator[None]:
    global _recorded
    outer, _recorded = _recorded, record
    try:
        yield
    finally:
        _recorded = outer


class _PluginFinder:
    """Finds the modules of plug-ins by name, in whichever process."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = _files().get(name)
        return spec_from_file_location(name, file) if file else None


sys.meta_path.append(_PluginFinder)
