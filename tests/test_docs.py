"""The documentation against the code: every command, every name, and help that can be run."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import layerscope
from layerscope.data.loaders import loaders
from layerscope.data.shifts import shifts
from layerscope.data.sources import sources, tasks
from layerscope.estimators import estimators
from layerscope.estimators.presets import PRESETS
from layerscope.models.families import families
from layerscope.render import renderers
from layerscope.report.section import sections
from layerscope.types import UNLABELLED, Measure, Task
from tests.cli.test_options import COMMANDS
from tests.report.planted import folder, probe

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


NAMES = {registry.kind: registry.names() for registry in (estimators, loaders, renderers, sections)}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return _script("cli")


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def examples(name: str) -> list[str]:
    return re.findall(r"^\s*(layerscope .+)$", COMMANDS[name].help, flags=re.MULTILINE)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_that_ends_with_examples(name: str):
    assert "Examples:" in COMMANDS[name].help
    assert examples(name)
    assert COMMANDS[name].help.rstrip().endswith(examples(name)[-1])


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_example_is_understood(name: str):
    command = COMMANDS[name]
    for example in examples(name):
        assert example.startswith(f"layerscope {name}")
        arguments = shlex.split(example)[1 + len(name.split()) :]
        # Parses options and arguments, and runs nothing.
        command.make_context(name, arguments)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_explained(name: str):
    silent = [p.name for p in COMMANDS[name].params if not getattr(p, "help", None)]
    assert not [option for option in silent if option != "help"]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_in_the_reference_and_the_readme(name: str):
    assert f"## `layerscope {name}`" in (DOCS / "reference" / "cli.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert f"layerscope {name}" in readme or f"make {name}" in readme


def test_the_command_reference_is_up_to_date(generator: ModuleType):
    assert (DOCS / "reference" / "cli.md").read_text() == generator.page(), "run make reference"


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_every_registered_name_is_documented(kind: str):
    pieces = (DOCS / "reference" / "pieces.md").read_text()
    assert [name for name in NAMES[kind] if f"`{name}`" not in pieces] == []


def test_the_table_of_families_names_every_one_and_is_up_to_date():
    generator = _script("families")
    page = (DOCS / "checkpoints.md").read_text()
    assert [name for name in families if f"| `{name}` |" not in page] == []
    assert page == generator.page(), "run make reference"


def test_the_page_of_tasks_names_every_one_and_is_up_to_date():
    page = (DOCS / "tasks.md").read_text()
    names = [*tasks.names(), *sources.names(), *shifts.names()]
    assert [name for name in names if f"`{name}`" not in page] == []
    assert page == _script("tasks").page(), "run make reference"


def test_links_between_pages_lead_somewhere():
    broken = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_every_page_is_in_the_navigation():
    navigation = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert [page for page in pages if page not in navigation] == []


def test_versions_agree():
    version = layerscope.__version__
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


TRY_IT = """
import sys
from pathlib import Path
import numpy as np
from layerscope.estimators import estimators
from layerscope.estimators.presets import PRESETS
from layerscope.types import CutPoint, Task
from layerscope.registry import load_plugin

load_plugin(Path(sys.argv[1]))
target = np.arange(60) % 3

class View:
    checkpoint, source, fingerprint = "net", "toy", "0"
    cut = CutPoint(0, "trunk", "trunk", "trunk", 3, "mean", 1.0)
    def features(self, split): return np.eye(3, dtype=np.float32)[target]
    def target(self, task, split): return target
    def groups(self, split): return np.arange(60).astype(str)

task = Task("toy-kind", "toy", "classes", "top-1", "maximise")
(score,) = estimators["class-mean"](0).score(View(), [task])
assert (score.val, score.test, score.primary) == (1.0, 1.0, True)
assert score.losses.test.tolist() == [0.0] * 60
"""


@pytest.mark.slow
def test_the_estimator_of_the_how_to_page_runs(tmp_path: Path):
    page = (DOCS / "how-to" / "add-an-estimator.md").read_text()
    plugin = tmp_path / "mine.py"
    plugin.write_text(re.search(r"```python\n(.+?)```", page, flags=re.DOTALL).group(1))
    # In a process of its own: what it registers stays there.
    command = [sys.executable, "-W", "error", "-c", TRY_IT, str(plugin)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "page", "said"),
    [
        ("family", "add-a-family", "ours: conforms, 1 examples"),
        ("task", "add-a-task", "dice: conforms, 1 examples"),
        ("estimator", "add-an-estimator", "class-mean: conforms"),
    ],
)
def test_the_piece_of_the_how_to_page_conforms(tmp_path: Path, kind: str, page: str, said: str):
    page = (DOCS / "how-to" / f"{page}.md").read_text()
    plugin = tmp_path / "mine.py"
    plugin.write_text(re.search(r"```python\n(.+?)```", page, flags=re.DOTALL).group(1))
    call = f"from layerscope.cli.main import app; app(['check', '{kind}', 'mine.py'])"
    command = [sys.executable, "-W", "error", "-c", call]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{said}\n"), done.stderr


def test_the_page_of_estimators_has_every_preset_as_it_is():
    page = (DOCS / "estimators.md").read_text()
    rows = dict(re.findall(r"^\| `sgd:([a-z0-9-]+)` \|(.+)$", page, flags=re.MULTILINE))
    assert set(rows) == set(PRESETS)
    for name, preset in PRESETS.items():
        cells = [cell.strip() for cell in rows[name].split("|")]
        length = f"{preset.steps:,} steps" if preset.steps else str(preset.epochs)
        assert cells[2] == f"{preset.optimiser.decay:g}"
        assert cells[4:8] == [length, f"{preset.batch:,}", preset.features, preset.citation]
        assert all(f"{rate:g}" in cells[1] for rate in (preset.rates[0], preset.rates[-1]))
        assert (" per 256" in cells[1]) == preset.scaled


LETTERS = {"rotation": "r", "translation": "t", "scale": "s", "row-scale": "u", "copies": "c"}


def test_the_page_of_measures_has_every_definition_as_it_is():
    page = (DOCS / "measures.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z-]+)` \|(.+)$", page, flags=re.MULTILINE))
    classes = Task("y", "memory", "classes", "top-1", "maximise")
    measures = {name: maker(0) for name, maker in estimators.items()}
    measures = {name: made for name, made in measures.items() if isinstance(made, Measure)}
    assert measures
    for name, made in measures.items():
        definition = made.definition(classes if made.handles(classes) else UNLABELLED)
        cells = [cell.strip() for cell in rows[name].replace("\\|", "").split("|")]
        assert definition.metric in cells[0]
        assert cells[1] == ("higher" if definition.direction == "maximise" else "lower")
        assert set(cells[2].split()) == {LETTERS[it] for it in definition.invariances}
        assert cells[4].split()[0] in definition.citation


@pytest.mark.slow
def test_the_section_of_the_how_to_page_is_in_the_report(tmp_path: Path):
    page = (DOCS / "how-to" / "add-a-report-section.md").read_text()
    plugin = tmp_path / "my_section.py"
    plugin.write_text(re.search(r"```python\n(.+?)```", page, flags=re.DOTALL).group(1))
    rows = [probe(cut, value) for cut, value in (("stem", 0.5), ("layer2", 0.8), ("trunk", 0.6))]
    results = folder(tmp_path / "results", rows).folder
    arguments = ["--plugin", str(plugin), "report", str(results), "-o", str(tmp_path / "report")]
    call = f"from layerscope.cli.main import app; app({arguments!r})"
    command = [sys.executable, "-W", "error", "-c", call]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "net, toy-kind: 33% deep." in done.stdout
    document = json.loads((tmp_path / "report" / "verdicts.json").read_text())
    assert [it["cut"] for it in document["savings"]] == ["layer2"]
    assert (tmp_path / "report" / "savings.csv").read_text().startswith("checkpoint,task,cut,depth")
    assert (tmp_path / "report" / "figures" / "savings.svg").is_file()
    html = (tmp_path / "report" / "index.html").read_text()
    at = [html.index(word) for word in ('alt="savings"', ">Cut table<", ">Savings<")]
    assert at == sorted(at)
