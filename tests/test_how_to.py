"""What a stranger copies from a how-to page runs as it stands there."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "how-to"
DOOR = "from layerscope.cli.main import main; main()"


def block(page: str, language: str, number: int = 0) -> str:
    text = (PAGES / f"{page}.md").read_text()
    return re.findall(rf"```{language}\n(.+?)```", text, flags=re.DOTALL)[number]


def run(folder: Path, *words: str) -> str:
    # In a process of its own: what a plug-in registers stays there.
    command = [sys.executable, "-W", "error", "-c", DOOR, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "page", "number", "said"),
    [
        ("method", "add-a-training-method", 0, "barlow: conforms\n"),
        ("estimator", "add-an-estimator", 1, "energy: conforms\n"),
    ],
)
def test_the_piece_of_a_page_conforms(tmp_path, kind, page, number, said):
    (tmp_path / "mine.py").write_text(block(page, "python", number))
    assert run(tmp_path, "check", kind, "mine.py") == said


@pytest.mark.slow
def test_the_checkpoint_of_the_page_has_its_cuts(tmp_path):
    (tmp_path / "make.py").write_text(block("add-a-checkpoint", "python"))
    (tmp_path / "mine.toml").write_text(block("add-a-checkpoint", "toml"))
    subprocess.run([sys.executable, "make.py"], cwd=tmp_path, check=True)
    found = json.loads(run(tmp_path, "cuts", "mine.toml", "--json"))
    assert found["checkpoint"] == "mine"
    assert found["cuts"][0]["name"] == "stem"


@pytest.mark.slow
def test_the_method_of_the_page_trains_and_its_card_says_how(tmp_path):
    (tmp_path / "mine.py").write_text(block("add-a-training-method", "python"))
    for i in range(24):
        place = tmp_path / "set" / ("train" if i < 16 else "val" if i < 20 else "test") / str(i % 2)
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    sizes = ("--epochs", "1", "--width", "8", "--side", "32", "--batch-size", "8")
    words = ("pretrain", "barlow", "--data", "folder=set", "-o", "runs/net.safetensors")
    run(tmp_path, "--plugin", "mine.py", *words, *sizes, "--workers", "0", "--device", "cpu")
    card = tomllib.loads((tmp_path / "runs" / "net.toml").read_text())
    assert card["training"]["command"] == (
        "layerscope --plugin mine.py pretrain barlow --data folder=set --epochs 1 --width 8 "
        "--side 32 --batch-size 8 --learning-rate 0.002 --seed 0 --device cpu "
        "-o runs/net.safetensors"
    )
    assert card["licence"] == ""
    assert card["citation"].startswith("Zbontar et al.")


def test_the_page_of_plug_ins_names_every_entry_point_group():
    text = (PAGES / "write-a-plug-in.md").read_text()
    sources = "\n".join(path.read_text() for path in (ROOT / "layerscope").rglob("*.py"))
    groups = set(re.findall(r'group="(layerscope\.\w+)"', sources))
    assert len(groups) > 5
    assert {group for group in groups if f"`{group}`" not in text} == set()
