import hashlib
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from layerscope.errors import CheckpointError, UnknownNameError
from layerscope.models import load, untrained
from layerscope.models.contents import Weights
from layerscope.models.declared import Declared
from layerscope.models.trunks.resnet import trunk_from_shapes

ARCHITECTURE = {"trunk": "resnet18", "width": 8, "head": [64, 64, 64], "output": 4}


class Payload:
    """Pickles into a call that would write a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(untrained(ARCHITECTURE, 0).state_dict(), path)
    return path


def test_own_checkpoints_come_back_as_they_were_saved(weights):
    network, model = untrained(ARCHITECTURE, 0).eval(), load(weights)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(images), model.module(images))
    assert model.checkpoint.family == "layerscope"
    assert model.checkpoint.architecture == ARCHITECTURE
    assert model.checkpoint.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    names = [cut.name for cut in model.cuts]
    blocks = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
    assert names == ["stem", *blocks, "trunk", "head.1", "head.2", "head.3"]
    assert [cut.part for cut in model.cuts] == ["trunk"] * 10 + ["head"] * 3
    assert not model.module.training


def test_half_precision_files_load_as_float32(weights):
    save_file(untrained(ARCHITECTURE, 0).half().state_dict(), weights)
    assert {p.dtype for p in load(weights).module.parameters()} == {torch.float32}


def test_random_weights_depend_on_the_seed_alone():
    before = torch.random.get_rng_state()
    first, again, other = (untrained(ARCHITECTURE, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.trunk.conv1.weight, again.trunk.conv1.weight)
    assert not torch.equal(first.trunk.conv1.weight, other.trunk.conv1.weight)


def test_a_card_beside_the_weights_is_used_and_its_hash_is_checked(weights):
    card = weights.with_suffix(".toml")
    card.write_text(
        'name = "mine"\nfamily = "layerscope"\nweights = "mine.safetensors"\nsha256 = "0000"\n'
    )
    with pytest.raises(CheckpointError, match="is not the file that its card"):
        load(weights)
    card.write_text(
        'family = "layerscope"\nweights = "mine.safetensors"\nlicence = "MIT"\n'
        "[preprocessing]\nresize = [32, 48]\nmean = [0.1, 0.2, 0.3]\nstd = [1, 1, 1]\n"
    )
    checkpoint = load(card).checkpoint
    assert checkpoint.licence == "MIT"
    assert checkpoint.preprocessing.resize == (32, 48)


@pytest.mark.parametrize("described", ['weights = "other.safetensors"', "seed = 0"])
def test_a_card_of_other_weights_never_stands_in_for_the_named_file(weights, described):
    save_file(untrained(ARCHITECTURE, 1).state_dict(), weights.with_name("other.safetensors"))
    weights.with_suffix(".toml").write_text(f'family = "layerscope"\n{described}\n')
    with pytest.raises(CheckpointError, match=r"beside 'mine\.safetensors' describes"):
        load(weights)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("family = ", "is not TOML"),
        ('family = "layerscope"', "neither weights nor seed"),
        ('weights = "x.pth"', "incomplete: 'family'"),
    ],
)
def test_a_card_that_cannot_be_used_says_why(tmp_path, text, match):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(CheckpointError, match=match):
        load(tmp_path / "bad.toml")


def test_missing_files_and_unknown_names():
    with pytest.raises(CheckpointError, match=r"no checkpoint file 'nowhere/x\.pth'"):
        load("nowhere/x.pth")
    with pytest.raises(UnknownNameError, match="simclr"):
        load("simclr-object3d")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, suffix, share):
    path = tmp_path / f"cut{suffix}"
    state = untrained(ARCHITECTURE, 0).state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"damaged|truncated|empty|plain tensors"):
        load(path)


@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_code_in_a_checkpoint_is_refused_by_name_and_never_run(tmp_path, save):
    target = tmp_path / "written"
    save({"state_dict": Payload(target)}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"code|plain tensors"):
        load(tmp_path / "evil.pth")
    assert not target.exists()


def test_the_blocked_names_are_shown(tmp_path):
    torch.save({"a": Payload(tmp_path / "written")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"touch|getattr|pathlib"):
        load(tmp_path / "evil.pth")


def test_state_dicts_of_other_architectures_are_refused(tmp_path):
    torch.save(torch.nn.LSTM(4, 4).state_dict(), tmp_path / "lstm.pth")
    with pytest.raises(CheckpointError, match="fits no known family"):
        load(tmp_path / "lstm.pth")


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "nan", "int8"])
def test_nothing_is_ever_filled_with_random_values(tmp_path, change):
    state = torchvision.models.resnet18().state_dict()
    key = "layer3.1.conv2.weight"
    if change == "missing":
        del state[key]
    elif change == "extra":
        state["layer9.weight"] = torch.zeros(3)
    elif change == "shape":
        state["layer3.1.bn2.bias"] = torch.zeros(3)
    elif change == "int8":
        state[key] = (state[key] * 100).to(torch.int8)
    else:
        state[key][0] = torch.nan
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"layer3\.1|layer9|fits no known family"):
        load(tmp_path / "bad.pth")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("layer1.0.conv1.weight", torch.zeros(7, 7, 7), "misshapen"),
        ("layer1.0.conv1.weight", torch.zeros(0, 8, 1, 1), "misshapen"),
        ("layer1.0.conv2.weight", torch.zeros(8), "misshapen"),
        ("layer1.0.conv1.weight", torch.zeros(7, 8, 1, 1), "reads 64 channels"),
        ("layer1.0.conv2.weight", torch.zeros(3, 16, 3, 3), "no Conv2d can take"),
    ],
)
def test_a_first_block_that_tells_no_width_is_refused(key, value, message):
    shapes = Weights(torchvision.models.resnet50().state_dict() | {key: value}).shapes
    with pytest.raises(CheckpointError, match=message):
        trunk_from_shapes(shapes)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (Declared(width=0.5), "--declare width=0.5 chooses nothing"),
        (
            Declared(width=0.5, arch="torchvision.models:resnet18"),
            "--declare width=0.5 chooses nothing",
        ),
        (
            Declared(branch="momentum", arch="torchvision.models:resnet18"),
            "--declare branch=momentum and arch cannot both",
        ),
        (Declared(head_from="fc"), "--declare head_from describes a network of your own"),
        (Declared(prefix_tokens=0), "--declare prefix_tokens describes"),
        (Declared(map_axes="nhwc"), "--declare map_axes describes"),
    ],
)
def test_what_is_declared_and_has_no_use_is_refused(tmp_path, answers, message):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "plain.pth")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "plain.pth", answers)


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_path_without_a_name_is_a_folder(name):
    with pytest.raises(CheckpointError, match="is a folder"):
        load(name)


def test_a_file_that_is_no_state_dict_is_refused(tmp_path):
    torch.save({"epoch": 3, "model": {}}, tmp_path / "wrapped.pth")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        load(tmp_path / "wrapped.pth")


def test_a_trunk_without_classifier_has_no_head(tmp_path):
    state = {k: v for k, v in torchvision.models.resnet18().state_dict().items() if k[:3] != "fc."}
    torch.save(state, tmp_path / "headless.pth")
    model = load(tmp_path / "headless.pth")
    assert {cut.part for cut in model.cuts} == {"trunk"}
    assert model.checkpoint.head == "none"
