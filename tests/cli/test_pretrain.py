import json
import tomllib

import pytest
from typer.testing import CliRunner

from layerscope.cli import demo
from layerscope.cli.main import app
from layerscope.models import load

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "objects3d"
    demo._unpack(demo.kept_set(), folder)
    return folder


def pretrain(data, output, *options):
    sizes = ["--epochs", "1", "--width", "8", "--side", "32", "--workers", "0"]
    return RUNNER.invoke(
        app, ["pretrain", *options, "--data", f"objects3d={data}", "-o", str(output), *sizes]
    )


@pytest.mark.parametrize(("method", "output"), [("simclr", 0), ("rotation", 4)])
def test_it_writes_weights_and_a_card_that_load_together(data, tmp_path, method, output):
    result = pretrain(data, tmp_path / "mine.safetensors", method, "--json")
    assert result.exit_code == 0, result.output
    card = tomllib.loads((tmp_path / "mine.toml").read_text())
    assert json.loads(result.stdout)["card"] == str(tmp_path / "mine.toml")
    assert card["training"]["command"].startswith(f"layerscope pretrain {method} --data")
    assert card["training"]["seed"] == 0
    model = load(tmp_path / "mine.safetensors")
    assert model.checkpoint.architecture["output"] == output
    assert model.checkpoint.preprocessing.resize == (32, 32)
    assert [cut.width for cut in model.cuts[-4:]] == [64] * 4


def test_the_same_recipe_gives_the_same_weights(data, tmp_path):
    for name in ("first", "second"):
        assert pretrain(data, tmp_path / f"{name}.safetensors", "rotation").exit_code == 0
    weights = [load(tmp_path / f"{name}.safetensors") for name in ("first", "second")]
    assert weights[0].checkpoint.sha256 == weights[1].checkpoint.sha256


@pytest.mark.parametrize(
    ("method", "output", "text"),
    [
        ("simclar", "x.safetensors", "no training method called 'simclar'"),
        ("simclr", "x.pth", "is no .safetensors file"),
    ],
)
def test_wrong_use_is_said_before_any_training(data, tmp_path, method, output, text):
    result = pretrain(data, tmp_path / output, method)
    assert result.exit_code == 2
    assert text in result.stderr
    assert "Hint:" in result.stderr
