from pathlib import Path

import pytest

from layerscope.cli import settings
from layerscope.errors import SettingsError


def test_what_was_written_comes_back_as_defaults_by_command(tmp_path):
    path = tmp_path / "out" / "settings.json"
    settings.write(path, "extract", {"output": Path("features"), "data": ("a=b",), "limit": None})
    settings.write(path, "probe", {"seed": 3})
    assert settings.read(path) == {
        "extract": {"output": "features", "data": ["a=b"], "limit": None},
        "probe": {"seed": 3},
    }


@pytest.mark.parametrize(
    ("text", "match"),
    [(None, "no settings file"), ("{", "is not JSON"), ("{}", "holds no LayerScope settings")],
)
def test_files_that_are_no_settings(tmp_path, text, match):
    path = tmp_path / "settings.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=match):
        settings.read(path)


def test_who_reads_while_another_job_writes_finds_the_file_whole(tmp_path):
    path = tmp_path / "settings.json"
    settings.write(path, "extract", {"seed": 1})
    before = path.read_text()
    (tmp_path / "held").hardlink_to(path)
    settings.write(path, "extract", {"seed": 2})
    assert (tmp_path / "held").read_text() == before
    assert settings.read(path) == {"extract": {"seed": 2}}
    assert sorted(it.name for it in tmp_path.iterdir()) == ["held", "settings.json"]
