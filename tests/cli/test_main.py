import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from layerscope import __version__
from layerscope.cli.main import CommandLine, app
from layerscope.errors import CRASHED, LayerScopeError

RUNNER = CliRunner()


def door(error):
    group = typer.Typer(cls=CommandLine)

    @group.callback()
    def shared(debug: bool = False):
        pass

    @group.command()
    def fail():
        raise error

    return group


def test_the_version():
    result = RUNNER.invoke(app, ["--version"])
    assert result.stdout == f"layerscope {__version__}\n"
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (LayerScopeError("It broke.", hint="Mend it."), 2, "Error: It broke.\nHint: Mend it.\n"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (OSError(28, "No space left on device", "x.h5"), 2, "'x.h5': No space left on device"),
        (PermissionError(13, "Permission denied", "/etc/x"), 2, "Permission denied"),
    ],
)
def test_errors_are_a_sentence_a_hint_and_a_code(error, code, text):
    result = RUNNER.invoke(door(error), ["fail"])
    assert result.exit_code == code
    assert text in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output


def test_the_traceback_is_there_on_request_only():
    error = LayerScopeError("It broke.")
    assert RUNNER.invoke(door(error), ["--debug", "fail"]).exception is error


def test_cuts_of_a_missing_checkpoint():
    result = RUNNER.invoke(app, ["cuts", "nowhere/model.pth"])
    assert result.exit_code == 2
    assert "There is no checkpoint file 'nowhere/model.pth'" in result.stderr
    assert "Hint:" in result.stderr


def test_an_unknown_checkpoint_shows_the_nearest_names():
    result = RUNNER.invoke(app, ["cuts", "simclr-object3d"])
    assert result.exit_code == 2
    assert "simclr-objects3d" in result.stderr


def test_wrong_use_is_exit_code_2():
    assert RUNNER.invoke(app, ["cuts"]).exit_code == 2
    assert RUNNER.invoke(app, ["no-such-command"]).exit_code == 2


@pytest.mark.parametrize("kind", ["families", "tasks", "estimators", "renderers", "methods"])
def test_listings_are_never_empty(kind):
    result = RUNNER.invoke(app, ["list", kind])
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 2


def test_a_bug_is_no_finding(tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from layerscope import data\n"
        "def broken():\n"
        "    raise RuntimeError('a bug')\n"
        "data.all_tasks = broken\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "layerscope", "--plugin", str(plugin), "list", "tasks"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == CRASHED
    assert "RuntimeError: a bug" in done.stderr
