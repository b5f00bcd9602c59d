"""The checks of a task find a metric that nothing knows, and no fault ends in a traceback."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from layerscope.cli.main import app
from layerscope.data.assembly import assemble
from layerscope.data.listing import require_folder
from layerscope.data.sources import sources, tasks
from layerscope.testing import TaskExample, TaskRow, check_source
from layerscope.types import Task

ABOUT = {"title": "Ink", "split": "by number", "licence": "CC0", "citation": "nobody, 2026"}
KIND = Task("ink-kind", "ink", "classes", "top-1", "maximise", classes=("dark", "light"), **ABOUT)
SHADE = Task("ink-shade", "ink", "latents", "mse", "minimise", encoding="raw", **ABOUT)
TURN = dataclasses.replace(SHADE, name="ink-turn", encoding="circular", period=256.0)
MARKS = Task(
    "ink-marks",
    "ink",
    "multilabel",
    "mean-average-precision",
    "maximise",
    classes=("round", "wide", "old"),
    **ABOUT,
)
SPLITS = np.array(["train"] * 8 + ["val"] * 4 + ["test"] * 4)
ROWS = range(16)


def targets_of(task):
    if task.kind == "classes":
        return np.arange(16) % 2
    if task.kind == "multilabel":
        return np.stack([np.arange(16) % n == 0 for n in (2, 3, 4)], 1).astype(np.int64)
    return np.arange(16, dtype=np.float64)[:, None]


def example(*given):
    def write(root):
        (root / "images").mkdir()
        for i in ROWS:
            Image.new("RGB", (9, 9), (9 * i, 0, 0)).save(root / f"images/{i:02}.png")

    def truth(task, row):
        if task.kind == "classes":
            return task.classes[row % 2]
        if task.kind == "multilabel":
            return {word for word, n in zip(task.classes, (2, 3, 4), strict=True) if row % n == 0}
        return [float(row)]

    rows = [
        TaskRow(f"images/{i:02}.png", SPLITS[i], {task.name: truth(task, i) for task in given})
        for i in ROWS
    ]
    return TaskExample(write, rows)


@pytest.fixture
def check(monkeypatch):
    def run(*given):
        def opener(root):
            require_folder(root, "images", hint="It holds images/.")
            ids = [f"images/{i:02}.png" for i in ROWS]
            return assemble("ink", root, ids, SPLITS, {task: targets_of(task) for task in given})

        own = {task.name: task for task in given}
        monkeypatch.setattr(sources, "_items", {**dict(sources.items()), "ink": opener})
        monkeypatch.setattr(tasks, "_items", {**dict(tasks.items()), **own})
        return check_source("ink", example(*given))

    return run


def test_sound_tasks_of_every_kind_conform(check):
    assert check(KIND, SHADE, TURN, MARKS) == []


FILE = """
from layerscope.data.sources import sources
from layerscope.errors import LayerScopeError


@sources.register("{name}")
def opener(root):
    raise KeyError("labels")


def examples():
    {examples}


opener.examples = examples
{last}
"""


@pytest.mark.parametrize(
    ("name", "examples", "last", "code", "finding"),
    [
        ("shy", "raise ZeroDivisionError", "", 1, "It raises ZeroDivisionError"),
        (
            "lazy",
            "from layerscope.testing import TaskExample; yield TaskExample(lambda root: None, [])",
            "",
            1,
            "example 1: It raises KeyError: 'labels'",
        ),
        (
            "wrong",
            "return ()",
            "from layerscope.types import Task; Task('w', 'w', 'classes', 'top1', 'maximise')",
            1,
            "fails in line 16: The task 'w' of classes has the metric 'top1'",
        ),
        ("broken", "return ()", "import nowhere_at_all", 2, "Error: The plug-in"),
        ("empty", "return ()", "", 2, "shows no example"),
    ],
)
def test_the_command_reports_whatever_is_wrong(
    tmp_path, monkeypatch, capsys, name, examples, last, code, finding
):
    monkeypatch.setattr(sources, "_items", dict(sources.items()))
    path = tmp_path / f"{name}.py"
    path.write_text(FILE.format(name=name, examples=examples, last=last))
    with pytest.raises(SystemExit) as ended:
        app(["check", "task", str(path), "--json"])
    said = capsys.readouterr()
    assert ended.value.code == code
    if code == 1:
        (row,) = json.loads(said.out)
        assert any(finding in found for found in row["findings"]), row
    else:
        assert finding in said.err
