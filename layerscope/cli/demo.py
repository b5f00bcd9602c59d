"""``layerscope demo``: the whole job on the reference checkpoints, one printed command a step."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

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
    context: typer.Context,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for everything that the demo makes.")
    ] = Path("demo"),
) -> None:
    """Run the whole job: render, extract, probe, report, on the reference checkpoints.

    \b
    Examples:
      layerscope demo
      layerscope demo -o /tmp/demo
    """
    application = context.find_root().command
    data, features = output / "objects3d", output / "features"
    results, report = output / "results", output / "report"
    if _renderer_works():
        sizes = f"--objects {OBJECTS} --views {VIEWS} --seed {SEED}".split()
        run(application, ["render", "-o", str(data), *sizes])
    else:
        _unpack(kept_set(), data)
    run(application, ["extract", *CHECKPOINTS, "--data", f"objects3d={data}", "-o", str(features)])
    run(application, ["probe", str(features), "--tasks", "objects3d", "-o", str(results)])
    run(application, ["report", str(results), "-o", str(report)])
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


def run(application: Callable[..., Any], arguments: list[str]) -> None:
    """Print a command of the application and run it."""
    terminal.say(f"\n$ layerscope {shlex.join(arguments)}")
    code = application(arguments, standalone_mode=False)
    if code:
        error = LayerScopeError(
            f"The demo stopped at `layerscope {arguments[0]}`, with exit code {code}.",
            hint="Its own message stands above.",
        )
        error.exit_code = int(code)  # type: ignore[misc]
        raise error


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
    heading = "\nVerdicts of the trained networks (the page has those of the random ones):"
    places = ["", f"Figures: {report / 'figures'}", f"Page:    {report / 'index.html'}"]
    terminal.emit(lines, False, lambda: "\n".join([heading, *lines, *places]))
