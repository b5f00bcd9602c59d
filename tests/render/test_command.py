import json
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from layerscope.cli import render

SMALL = ["--objects", "4", "--views", "2", "--size", "16", "--renderer", "drawn", "--workers", "1"]


@pytest.fixture
def run(drawn):
    app = Typer()
    app.command()(render.command)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments], catch_exceptions=False)

    return invoke


def test_a_dry_run_tells_rows_and_bytes_and_writes_nothing(run, tmp_path: Path):
    done = run("-o", str(tmp_path / "set"), *SMALL, "--dry-run", "--json")
    found = json.loads(done.stdout)
    assert (found["objects"], found["images"], found["dry_run"]) == (4, 8, True)
    assert found["bytes"] > 0
    assert not (tmp_path / "set").exists()


def test_a_run_tells_what_it_wrote(run, tmp_path: Path):
    done = run("-o", str(tmp_path / "set"), *SMALL, "--json")
    found = json.loads(done.stdout)
    assert found["images"] == len(list(tmp_path.glob("set/images/*/*.jpg"))) == 8
    assert sum(found["splits"].values()) == 8


def test_for_a_person_it_is_a_table(run, tmp_path: Path):
    done = run("-o", str(tmp_path / "set"), *SMALL)
    assert "4 in 4 categories" in done.stdout
    assert "Rendering: 8 of 8" in done.stderr
