"""The reference checkpoints: they load, they are small, and they know something."""

import pytest
import torch

from layerscope.cli import demo
from layerscope.data import ReadRequest, open_source
from layerscope.data.loaders import loaders
from layerscope.models import card_folder, card_names, find_card, load
from layerscope.stats.rotation import geodesic_angle, quaternion_from_euler

CONSTANT_PREDICTOR = 83.0
"""Mean geodesic error of always answering the same, in degrees."""


def test_together_they_weigh_at_most_twelve_megabytes():
    assert sum(path.stat().st_size for path in card_folder().glob("*.safetensors")) <= 12_000_000


@pytest.mark.parametrize("name", ["rotation-objects3d", "simclr-objects3d"])
def test_a_trained_card_says_how_to_train_it_again(name):
    text = find_card(name).path.read_text()
    for word in ("command = ", "seed = ", "data = ", "hardware = ", "minutes = ", "final_loss = "):
        assert word in text


@pytest.mark.parametrize("name", card_names())
def test_every_card_loads_with_its_cuts(name):
    model = load(name)
    assert [cut.name for cut in model.cuts][-4:] == ["trunk", "head.1", "head.2", "head.3"]
    widths = {cut.width for cut in model.cuts[-4:]}
    assert len(widths) == 1


def test_a_random_twin_has_the_architecture_of_its_trained_network():
    for name in ("rotation-objects3d", "simclr-objects3d"):
        trained, random = load(name), load(f"{name}-random")
        assert trained.checkpoint.architecture == random.checkpoint.architecture
        assert trained.checkpoint.preprocessing == random.checkpoint.preprocessing
        assert trained.checkpoint.sha256 != random.checkpoint.sha256


def test_the_rotation_network_turns_unseen_objects_far_better_than_a_constant(tmp_path):
    demo._unpack(demo.kept_set(), tmp_path)
    source = open_source("objects3d", tmp_path)
    model = load("rotation-objects3d")
    rows = range(0, len(source.ids), 8)
    reading = ReadRequest(source, model.checkpoint.preprocessing, 64, rows)
    images = torch.cat([batch for _, batch in loaders["threads"](reading)])
    with torch.inference_mode():
        answer = model.module(images)
    truth = quaternion_from_euler(torch.from_numpy(source.targets["objects3d-rotation"][rows]))
    error = torch.rad2deg(geodesic_angle(answer.double(), truth)).mean()
    assert error < 0.6 * CONSTANT_PREDICTOR
