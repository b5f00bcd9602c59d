"""``layerscope cuts``: the table, the account of every key, and what a user declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from layerscope.cli.main import app
from layerscope.models.checkpoint import load
from layerscope.models.declared import Declared
from tests.models.families.test_dino import example as dino
from tests.models.families.test_moco import example as moco

RUNNER = CliRunner()


def run(*words: object):
    return RUNNER.invoke(app, ["cuts", *map(str, words)])


def document(*words: object) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("moco") / "run.pth.tar"
    torch.save(moco().contents, path)
    return path


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dino") / "vit.pth"
    torch.save(dino().contents, path)
    return path


def test_the_page_says_what_it_is_why_and_what_was_used(file):
    text = run(file).stdout
    assert "run: moco, because encoder_q beside a queue" in text
    assert "architecture: trunk resnet18" in text
    assert "head: 2-layer MLP, 512-16" in text
    assert "images: resized to 256 pixels, bilinear; centre crop 224" in text
    assert "Off by default, chosen with --cuts:" in text
    assert "head.2n" in text.split("Off by default")[1]
    assert "the other branch's weights: " in text
    assert "0 missing" in text
    assert "module.encoder_q.conv1.weight" not in text


def test_every_key_of_the_file_is_used_or_ignored_for_a_reason(file):
    found = document(file)
    tensors = torch.load(file, weights_only=True)["state_dict"]
    accounted = {*found["keys"], *found["ignored"]}
    assert accounted >= {f"state_dict/{key}" for key in tensors}
    assert not set(found["keys"]) & set(found["ignored"])
    assert found["missing"] == []
    listed = run(file, "--keys").stdout
    assert all(f"  used     {key} → " in listed for key in found["keys"])
    assert all(f"  ignored  {key}: " in listed for key in found["ignored"])


def test_json_holds_cuts_and_those_off_by_default(file):
    found = document(file)
    assert [cut["name"] for cut in found["cuts"]][-3:] == ["trunk", "head.1", "head.2"]
    assert [cut["name"] for cut in found["more"]] == ["head.2n"]
    assert found["has_head"] is True
    assert found["preprocessing"]["crop"] == 224
    assert found["declared"] == {}


def test_the_other_branch_has_other_weights_and_another_name(file):
    found = document(file, "--branch", "momentum")
    assert found["checkpoint"] == "run+momentum"
    assert found["declared"] == {"branch": "momentum"}
    assert "state_dict/module.encoder_k.conv1.weight" in found["keys"]


def test_names_tell_apart_what_was_chosen_of_one_file(file, vit):
    names = {
        load(file).checkpoint.name,
        load(file, Declared(branch="momentum")).checkpoint.name,
        load(file, Declared(image_size=96)).checkpoint.name,
        load(file, Declared(image_size=96, branch="momentum")).checkpoint.name,
    }
    assert names == {"run", "run+momentum", "run+96px", "run+momentum+96px"}
    # An activation has one right answer: it is no choice of one among several networks.
    assert load(file, Declared(head_act="gelu")).checkpoint.name == "run"
    assert load(vit, Declared(image_size=96)).checkpoint.name == "vit+96px"


def test_a_selection_is_shown_in_its_poolings(vit):
    found = document(vit, "--cuts", "-4:,blocks.0", "--pooling", "mean,cls")
    assert [(cut["name"], cut["pooling"]) for cut in found["cuts"]] == [
        ("blocks.0", "mean"),
        ("blocks.0", "cls"),
        ("trunk", "mean"),
        ("trunk", "cls"),
        ("head.1", "none"),
        ("head.2", "none"),
        ("head.3", "none"),
    ]
    text = run(vit, "--cuts", "Q").stdout
    assert "logits.Q.1" in text.split("Off by default")[0]


def test_a_file_without_a_head_says_what_cannot_be_seen(tmp_path):
    from torchvision.models import resnet18

    state = {k: v for k, v in resnet18().state_dict().items() if not k.startswith("fc.")}
    torch.save(state, tmp_path / "bare.pth")
    text = run(tmp_path / "bare.pth").stdout
    assert "The file holds no head, so the drop behind the trunk cannot be seen." in text
    assert document(tmp_path / "bare.pth")["has_head"] is False


def test_a_card_with_a_seed_has_no_keys():
    done = run("simclr-objects3d-random")
    assert done.exit_code == 0
    assert "random weights from seed" in done.stdout
    assert document("simclr-objects3d-random", "--branch", "momentum")["checkpoint"] == (
        "simclr-objects3d-random"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cuts", "layr1.0"], "There is no layer called 'layr1.0'"),
        (["--pooling", "cls"], "The pooling 'cls' fits none of the chosen cuts"),
        (["--pooling", "average"], "There is no pooling called 'average'"),
        (["--family", "moko"], "There is no checkpoint family called 'moko'"),
        (["--family", "dino"], "is not of the family 'dino'"),
        (["--arch", "nowhere"], "--declare arch='nowhere' does not name a factory"),
    ],
)
def test_wrong_words_are_a_sentence_a_hint_and_exit_code_2(file, words, said):
    done = run(file, *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_network_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "nets_for_the_door.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                         nn.Flatten(), nn.Linear(4, 5))\n"
    )
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    monkeypatch.chdir(tmp_path)
    done = run("mine.pth", "--arch", "nets_for_the_door:make", "--head-from", "4")
    assert done.exit_code == 0, done.output
    assert "mine: own, because --declare arch=nets_for_the_door:make" in done.stdout
    assert "Note: How its images were prepared is not known" in done.stdout
    found = document(
        "mine.pth", "--arch", "nets_for_the_door:make", "--head-from", "4", "--image-size", "32"
    )
    assert [cut["name"] for cut in found["cuts"]] == ["0", "1", "2", "trunk", "4"]
    assert found["cuts"][-1]["part"] == "head"


def test_settings_of_an_earlier_run_are_taken_back(file, tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"layerscope": "0", "cuts": {"branch": "momentum"}}))
    done = RUNNER.invoke(app, ["--config", str(settings), "cuts", str(file), "--json"])
    assert json.loads(done.stdout)["checkpoint"] == "run+momentum"
