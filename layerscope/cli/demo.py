"""``layerscope demo``: the whole job on the reference checkpoints, one printed command a step."""

from __future__ import annotations

import shlex
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from layerscope.cli import terminal
from layerscope.errors import LayerScopeError, RenderError, SettingsError

OBJECTS, VIEWS, SEED = 240, 8, 1
"""The demo's rendered set; its seed makes objects that the reference checkpoints never saw."""

CHECKPOINTS = (
    "rotation-objects3d",
    "simclr-objects3d",
    "rotation-objects3d-random",
    "simclr-objects3d-random",
)


def command(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for everything that the demo makes.")
    ] = Path("demo"),
) -> None:
    """Run the whole job: render, extract, probe, report, on the reference checkpoints.

    \b
    Examples:
      layerscope demo
      layerscope demo -o /tmp/demo
    """
    data, features = output / "objects3d", output / "features"
    results, report = output / "results", output / "report"
    if _renderer_works():
        sizes = ["--objects", str(OBJECTS), "--views", str(VIEWS), "--seed", str(SEED)]
        _run(["render", "-o", str(data), *sizes])
    else:
        _unpack(kept_set(), data)
    _run(["extract", *CHECKPOINTS, "--data", f"objects3d={data}", "-o", str(features)])
    _run(["probe", str(features), "--tasks", "objects3d", "-o", str(results)])
    _run(["report", str(results), "-o", str(report)])
    _conclude(results, report)


def kept_set() -> Path:
    """Return the archive of the demo's rendered set that comes with LayerScope."""
    installed = Path(__file__).parents[1] / "examples"
    folder = installed if installed.is_dir() else Path(__file__).parents[2] / "examples"
    return folder / "objects3d.zip"


def _renderer_works() -> bool:
    from layerscope.render import renderers

    try:
        version = renderers["mitsuba"]().version()
    except RenderError as error:
        terminal.say(f"{error.message} {error.hint}")
        terminal.say("So the demo takes the set kept with LayerScope, made by the same command.")
        return False
    terminal.say(f"Rendering with mitsuba {version}.")
    return True


def _unpack(archive: Path, data: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(data)
    except FileNotFoundError:
        raise SettingsError(
            f"The kept set {str(archive)!r} is not there either.",
            hint='Install the renderer: pip install "layerscope[render]".',
        ) from None


def _run(arguments: list[str]) -> None:
    from layerscope.cli.main import app

    terminal.say(f"\n$ layerscope {shlex.join(arguments)}")
    code = app(arguments, standalone_mode=False)
    if code:
        raise _Stopped(int(code), arguments[0])


class _Stopped(LayerScopeError):
    """A step of the demo that did not end well, with its own exit code."""

    def __init__(self, code: int, step: str) -> None:
        super().__init__(
            f"The demo stopped at `layerscope {step}`, with exit code {code}.",
            hint="Its own message stands above.",
        )
        self.exit_code = code  # type: ignore[misc]


def _conclude(results: Path, report: Path) -> None:
    from layerscope.results import Results
    from layerscope.verdicts import sentence, verdicts

    stored = Results(results)
    titles = {name: task.title for name, task in stored.tasks().items()}
    lines = [
        f"{verdict.checkpoint}: {sentence(verdict, titles.get(verdict.task, ''))}"
        for verdict in verdicts(stored)
        if verdict.trained
    ]
    closing = [
        "",
        "Verdicts of the trained networks (the page has those of the random ones):",
        *lines,
        "",
        f"Figures: {report / 'figures'}",
        f"Page:    {report / 'index.html'}",
    ]
    terminal.emit(lines, False, lambda: "\n".join(closing))
