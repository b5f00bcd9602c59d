"""The house rules that no single room can check: fences, and a command line that loads little."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import grimp
import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

import layerscope

ROOT = Path(layerscope.__file__).parent
HEAVY = {
    "torch",
    "timm",
    "torchvision",
    "h5py",
    "matplotlib",
    "sklearn",
    "scipy",
    "mitsuba",
    "submitit",
}
FENCES = {
    "h5py": {"cache"},
    "timm": {"models"},
    "torchvision": {"models", "data", "training"},
    "ffcv": {"data"},
    "matplotlib": {"report"},
    "pyarrow": {"results", "data"},
    "pandas": {"results"},
    "xarray": {"results"},
    "sklearn": {"estimators", "probing"},
    "numba": {"data", "cache", "stats"},
    "mitsuba": {"render"},
    "trimesh": {"render"},
    "bpy": {"render"},
    "captum": set(),
    "onnx": set(),
    "huggingface_hub": {"models"},
    "submitit": {"cli", "runtime"},
    "typer": {"cli"},
    "rich": {"cli"},
}
"""By package: the rooms that may import it."""
CONTRACT = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"][0]


@cache
def imported(path: Path) -> frozenset[str]:
    return frozenset(imports(path))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("package", sorted(FENCES))
def test_a_third_party_stays_in_its_rooms(package: str):
    files = [path for path in ROOT.rglob("*.py") if package in imported(path)]
    outside = [str(path.relative_to(ROOT)) for path in files if room(path) not in FENCES[package]]
    assert not outside, f"{package} belongs in {sorted(FENCES[package])} only"


def test_no_file_is_named_after_nothing():
    vague = {"utils", "util", "common", "helpers", "core", "misc"}
    assert not [path for path in ROOT.rglob("*.py") if {path.stem, path.parent.name} & vague]


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from layerscope.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "extract" in done.stdout
    assert not HEAVY & set(done.stderr.split())


def test_the_page_shows_the_contracts_table_of_rooms():
    page = (ROOT.parent / "docs/how-it-works.md").read_text(encoding="utf-8")
    assert "\n".join(["```", *CONTRACT["layers"], "```"]) in page


def test_the_contract_names_every_room():
    named = {room for line in CONTRACT["layers"] for room in line.split(" | ")}
    there = {path.stem for path in ROOT.iterdir() if path.stem[0] != "_" and room_like(path)}
    assert named == there
    assert CONTRACT["exhaustive"]


def room_like(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").is_file()


def test_no_two_files_import_each_other():
    graph = grimp.build_graph("layerscope")
    below = {
        name: graph.find_modules_directly_imported_by(name)
        for name in graph.modules - {"layerscope"}
    }
    circles = [part for part in components(below) if len(part) > 1]
    assert not circles


def components(below: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of a graph, with SciPy's search."""
    names = sorted(below)
    place = {name: number for number, name in enumerate(names)}
    edges = np.zeros((len(names), len(names)), dtype=bool)
    for name, targets in below.items():
        edges[place[name], [place[it] for it in targets if it in place]] = True
    count, labels = connected_components(edges, connection="strong")
    return [
        [name for name, label in zip(names, labels, strict=True) if label == part]
        for part in range(count)
    ]
