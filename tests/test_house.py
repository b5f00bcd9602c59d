"""The house rules that no single room can check: fences, and a command line that loads little."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    "torchvision": {"models", "data", "pretrain"},
    "matplotlib": {"report"},
    "captum": {"report"},
    "xarray": {"report"},
    "mitsuba": {"render"},
    "trimesh": {"render"},
    "bpy": {"render"},
    "typer": {"cli"},
    "rich": {"cli"},
    "ffcv": {"data"},
    "huggingface_hub": {"models"},
    "submitit": {"cli", "job"},
}


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
    files = [path for path in ROOT.rglob("*.py") if package in imports(path)]
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
