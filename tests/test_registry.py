import json
import os
import pickle
import subprocess
import sys

import pytest

from layerscope.errors import DuplicateNameError, LayerScopeError, UnknownNameError
from layerscope.registry import PLUGINS, Registry, load_plugin


def filled():
    registry = Registry("fruit")
    for name in ("apple", "apricot", "banana", "cherry"):
        registry.add(name, name.upper())
    return registry


def test_a_miss_shows_the_nearest_three():
    with pytest.raises(UnknownNameError, match=r"no fruit called 'aple'") as error:
        filled()["aple"]
    assert error.value.near[0] == "apple"
    assert len(error.value.near) == 3
    assert "apple" in error.value.hint


def test_a_name_is_never_overwritten():
    registry = filled()
    with pytest.raises(DuplicateNameError, match="Two fruit definitions are called 'apple'"):
        registry.register("apple")(object())
    assert registry["apple"] == "APPLE"


def test_listing_is_sorted_and_complete():
    registry = filled()
    assert list(registry) == ["apple", "apricot", "banana", "cherry"]
    assert len(registry) == 4
    assert dict(registry.items())["cherry"] == "CHERRY"
    assert "apple" in registry
    assert "pear" not in registry


def test_a_package_registers_itself_on_the_first_look(tmp_path, monkeypatch):
    package = tmp_path / "orchard"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from layerscope.registry import Registry\ntrees = Registry('tree', package='orchard')\n"
    )
    (package / "oak.py").write_text("from orchard import trees\ntrees.add('oak', 1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    from orchard import trees

    assert trees.names() == ("oak",)


def test_a_plugin_file_is_run_and_a_missing_one_is_an_error(tmp_path):
    marker = tmp_path / "ran"
    plugin = tmp_path / "mine.py"
    plugin.write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    load_plugin(plugin)
    assert marker.exists()
    with pytest.raises(LayerScopeError, match="is not a Python file"):
        load_plugin(tmp_path / "nothing.py")


MODERN = """
from __future__ import annotations

import enum
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from layerscope.data.sources import sources


class Side(enum.Enum):
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Throw:
    side: Side
    turns: Sequence[float] = field(default_factory=tuple)


@dataclass
class Opener:
    name: typing.ClassVar[str] = "modern"
    last: Throw | None = None

    def __call__(self, root: Path, *, only: str = "") -> Throw:
        return Throw(Side.UP)


class Point(typing.NamedTuple):
    x: int


sources.add(Opener.name, Opener())
"""


@pytest.fixture
def plugin(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def registry(monkeypatch):
    from layerscope.data.sources import sources

    monkeypatch.setattr(sources, "_items", dict(sources.items()))
    return sources


def test_a_plugin_is_written_as_any_module_is(plugin, registry):
    found = load_plugin(plugin(MODERN))
    assert found.names(registry) == ["modern"]
    throw = registry["modern"]("here")
    assert (throw.side.value, throw.turns) == ("up", ())
    assert sys.modules[found.module.__name__] is found.module
    assert pickle.loads(pickle.dumps([throw, found.module.Point(3)])) == [throw, (3,)]


def test_a_plugin_runs_once(plugin, registry):
    path = plugin(MODERN)
    assert load_plugin(path) is load_plugin(path.parent / "." / path.name)
    assert load_plugin(path).names(registry) == ["modern"]


def test_two_plugins_may_have_one_file_name_or_that_of_a_package(plugin):
    first, second = plugin("x = 1\n", "a/json.py"), plugin("x = 2\n", "b/json.py")
    assert (load_plugin(first).module.x, load_plugin(second).module.x) == (1, 2)
    assert json.dumps(1) == "1"
    assert load_plugin(plugin("x = 3\n", "my-own.v2.py")).module.x == 3


def test_a_folder_is_a_plugin_with_imports_of_its_own(plugin, tmp_path):
    plugin("from .parts.sizes import SIZE\n", "ours/__init__.py")
    plugin("", "ours/parts/__init__.py")
    plugin("from .. import __name__ as above\nSIZE = 7\n", "ours/parts/sizes.py")
    assert load_plugin(tmp_path / "ours").module.SIZE == 7
    plugin("from .parts import missing\n", "theirs/__init__.py")
    plugin("\n\n1 / 0\n", "theirs/parts.py")
    with pytest.raises(LayerScopeError, match=r"theirs/parts.py' fails in line 3: ZeroDivisionErr"):
        load_plugin(tmp_path / "theirs")
    (tmp_path / "bare").mkdir()
    with pytest.raises(LayerScopeError, match="is not a Python file"):
        load_plugin(tmp_path / "bare")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\ny = = 2\n", "line 2: SyntaxError: invalid syntax."),
        ("\nimport nowhere_at_all\n", "line 2: ModuleNotFoundError: No module named 'nowhere_at_a"),
        ("def f():\n    return {}['a']\n\nf()\n", "line 2: KeyError: 'a'."),
        ("import json\njson.loads('{')\n", "line 2: JSONDecodeError: Expecting"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit: 0."),
        ("raise ValueError\n", "line 1: ValueError."),
    ],
)
def test_a_plugin_that_fails_says_where_and_why(plugin, registry, text, reason):
    path = plugin("from layerscope.data.sources import sources; sources.add('half', len)\n" + text)
    number = int(reason.split(":")[0].removeprefix("line ")) + 1
    before = set(sys.modules)
    with pytest.raises(LayerScopeError) as error:
        load_plugin(path)
    expected = f"The plug-in {str(path)!r} fails in line {number}:{reason.partition(':')[2]}"
    assert error.value.message.startswith(expected)
    assert error.value.hint
    assert "half" not in registry
    assert not [name for name in set(sys.modules) - before if name.startswith("layerscope.")]
    assert json.loads(os.environ[PLUGINS]) == []
    path.write_text("x = 1\n# mended\n")
    assert load_plugin(path).module.x == 1


def test_a_plugin_learns_at_once_that_a_name_is_taken(plugin, registry):
    path = plugin("from layerscope.data.sources import sources\nsources.add('objects3d', len)\n")
    with pytest.raises(LayerScopeError, match=r"line 2: Two .+ definitions are called 'objects3d'"):
        load_plugin(path)
    assert registry["objects3d"] is not len


SPAWN = """
import multiprocessing, sys
from pathlib import Path
from layerscope.data.sources import sources
from layerscope.registry import load_plugin

if __name__ == "__main__":
    load_plugin(Path(sys.argv[1]))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        throw = sources["modern"]("here")
        assert pool.apply(type(throw).__repr__, (throw,)) == repr(throw)
        assert "modern" in pool.apply(sources_of_the_worker)
"""


def test_a_spawned_worker_knows_the_plugin(plugin, tmp_path):
    script = tmp_path / "script.py"
    worker = "def sources_of_the_worker():\n    return sources.names()\n\n\n"
    script.write_text(SPAWN.replace("if __name__", worker + "if __name__"))
    command = [sys.executable, str(script), str(plugin(MODERN))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_line_lists_what_a_plugin_adds_and_explains_one_that_fails(plugin):
    call = "from layerscope.cli.main import main; main()"

    def run(path):
        command = [sys.executable, "-c", call, "--plugin", str(path), "list", "sources"]
        return subprocess.run(command, capture_output=True, text=True)

    done = run(plugin(MODERN))
    assert done.returncode == 0, done.stderr
    assert "modern" in done.stdout
    done = run(plugin("import nowhere_at_all\n", "other.py"))
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith("Error: The plug-in ")
    assert second.startswith("Hint: ")
