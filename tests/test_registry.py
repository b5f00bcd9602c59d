import pytest

from layerscope.errors import DuplicateNameError, LayerScopeError, UnknownNameError
from layerscope.registry import Registry, load_plugin


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
