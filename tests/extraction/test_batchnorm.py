"""Extraction from a network whose file holds no BatchNorm statistics."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.cache import open_cache
from layerscope.data import image_transform, read_image
from layerscope.errors import CheckpointError
from layerscope.extraction.extract import extract, plan
from layerscope.models.batchnorm import without_statistics
from tests.extraction.test_extract import Toy, source, toy_model

__all__ = ["source"]


class Untracked(Toy):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(6, track_running_stats=False)


def model(**declared):
    tracked = toy_model()
    module = Untracked()
    state = {k: v for k, v in tracked.module.state_dict().items() if k in module.state_dict()}
    module.load_state_dict(state)
    checkpoint = replace(tracked.checkpoint, declared=declared)
    return replace(tracked, module=module.eval(), checkpoint=checkpoint)


def rows(path, cut="stem"):
    with open_cache(path) as cache:
        view = cache.view(cut)
        return {split: view.features(split) for split in ("train", "val", "test")}


def images(source, chosen):
    transform = image_transform(toy_model().checkpoint.preprocessing)
    return torch.stack([transform(read_image(source.root / source.ids[i])) for i in chosen])


def test_without_a_declaration_nothing_is_extracted(source, tmp_path):
    with pytest.raises(CheckpointError, match="no statistics for its BatchNorms"):
        extract(model(), source, tmp_path)
    assert not list(tmp_path.glob("*.h5*"))


def test_a_declaration_for_a_network_that_has_statistics_is_refused(source, tmp_path):
    tracked = toy_model()
    declared = replace(
        tracked, checkpoint=replace(tracked.checkpoint, declared={"batch_norm": "batch"})
    )
    with pytest.raises(CheckpointError, match="holds its BatchNorms' statistics"):
        plan(declared, source, tmp_path)


def test_batch_statistics_are_those_of_each_batch(source, tmp_path):
    network = model(batch_norm="batch")
    report = extract(network, source, tmp_path, batch_size=6, device="cpu", storage="float32")
    found = rows(report.path)
    module = network.module
    with torch.no_grad():
        expected = torch.cat(
            [
                module.bn(module.conv(images(source, range(start, min(start + 6, 17))))).mean(
                    (2, 3)
                )
                for start in range(0, 17, 6)
            ]
        ).numpy()
    for split, features in found.items():
        np.testing.assert_allclose(features, expected[source.splits == split], rtol=1e-4, atol=1e-5)


def test_a_last_batch_of_one_image_is_refused_before_anything_is_written(source, tmp_path):
    with pytest.raises(CheckpointError, match="single image"):
        extract(model(batch_norm="batch"), source, tmp_path, batch_size=8)
    assert not list(tmp_path.glob("*.h5*"))


def test_recalibrated_statistics_are_those_of_the_training_images(source, tmp_path):
    network = model(batch_norm="recalibrate")
    report = extract(network, source, tmp_path, batch_size=16, device="cpu", storage="float32")
    train = np.flatnonzero(source.splits == "train")
    module = network.module
    with torch.no_grad():
        conv = module.conv(images(source, train))
        everything = module.conv(images(source, range(17)))
        shape = (1, 6, 1, 1)
        mean, var = conv.mean((0, 2, 3)).view(shape), conv.var((0, 2, 3)).view(shape)
        scale, shift = module.bn.weight.view(shape), module.bn.bias.view(shape)
        normal = (everything - mean) / (var + module.bn.eps).sqrt() * scale + shift
        expected = normal.mean((2, 3)).numpy()
    for split, features in rows(report.path).items():
        np.testing.assert_allclose(features, expected[source.splits == split], rtol=1e-4, atol=1e-5)


def test_the_network_is_left_as_it_was_so_that_the_next_source_has_its_own(source, tmp_path):
    network = model(batch_norm="recalibrate")
    extract(network, source, tmp_path / "a")
    assert without_statistics(network.module) == ("bn",)
    again = extract(network, source, tmp_path / "b")
    assert np.array_equal(rows(again.path)["test"], rows(tmp_path / "a" / again.path.name)["test"])


def test_the_fingerprint_knows_the_statistics_and_the_batches_they_are_of(source, tmp_path):
    prints = {
        plan(model(batch_norm=mode), source, tmp_path, batch_size=size).header.fingerprint
        for mode in ("batch", "recalibrate")
        for size in (5, 6)
    }
    assert len(prints) == 4
