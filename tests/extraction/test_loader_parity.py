"""Two loaders compared: nothing where they agree, and the very difference where they do not."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from layerscope.data import image_transform, read_image
from layerscope.errors import SettingsError, SourceError
from layerscope.extraction.loader_parity import compare_loaders
from layerscope.models import load
from tests.extraction.test_extract import ROWS, source, toy_model, toy_source
from tests.toy_source import CARD

__all__ = ["source"]


def test_loaders_that_give_the_same_bytes_give_the_same_features(source):
    found = compare_loaders(
        toy_model(), source, source, loader="threads", against="torchvision", device="cpu"
    )
    assert found.images == ROWS
    assert found.pixels == (0.0, 0.0)
    assert set(found.features.values()) == {(0.0, 0.0)}


@pytest.fixture
def brighter(source, tmp_path):
    """The same rows from other files, each value 5 grey levels up."""
    root = tmp_path / "brighter"
    root.mkdir()
    for name in source.ids:
        pixels = np.asarray(Image.open(source.root / name)) // 2
        Image.fromarray(pixels).save(source.root / name)
        Image.fromarray(pixels + 5).save(root / name)
    return toy_source(root)


def test_a_difference_is_measured_in_grey_levels_and_in_features(source, brighter):
    model = toy_model()
    model.module.eval()
    found = compare_loaders(
        model, brighter, source, loader="threads", against="threads", images=7, device="cpu"
    )
    assert found.images == 7
    assert found.pixels == (pytest.approx(5, abs=0.3), pytest.approx(5, abs=1))
    transform = image_transform(model.checkpoint.preprocessing)
    rows = [row * ROWS // 7 for row in range(7)]
    with torch.no_grad():
        one, other = (
            model.module(
                torch.stack([transform(read_image(it.root / it.ids[row])) for row in rows])
            ).double()
            for it in (brighter, source)
        )
    gap, size = (one - other).norm(dim=1), other.norm(dim=1)
    whole, worst = found.features["head.2@none"]
    assert whole == pytest.approx(float(gap.norm() / size.norm()), rel=1e-4)
    assert worst == pytest.approx(float((gap / size).max()), rel=1e-4)


def test_other_rows_are_refused(source):
    other = replace(source, ids=tuple(reversed(source.ids)))
    with pytest.raises(SettingsError, match="hold different rows"):
        compare_loaders(toy_model(), source, other, loader="threads", against="threads")


def test_a_bad_image_is_named(source):
    (source.root / "00.png").write_bytes(b"")
    with pytest.raises(SourceError, match=r"00\.png"):
        compare_loaders(
            toy_model(), source, source, loader="threads", against="torchvision", device="cpu"
        )


def test_through_the_door(source, tmp_path, monkeypatch, command_line):
    from layerscope.data.sources import sources

    sources.names()
    monkeypatch.setitem(sources._items, "toy", toy_source)
    monkeypatch.chdir(tmp_path)
    Path("net.toml").write_text(CARD.format(seed=1))
    words = ["net.toml", "--data", "toy=images", "--images", "5", "--device", "cpu"]
    knock = partial(command_line, "check", "preprocessing", *words)
    code, out, err = knock("--cuts", "trunk,head.*")
    assert code == 0, err
    assert "threads against torchvision, 5 images." in out
    assert "0.0000 grey levels on average, 0.00 at most" in out
    assert [line.split()[0] for line in out.splitlines()[5:]] == [
        "trunk@mean",
        "head.1@none",
        "head.2@none",
    ]
    record = json.loads(knock("--json")[1])
    assert record["features"]["trunk@mean"] == {"difference": 0.0, "largest_row": 0.0}
    assert len(load("net.toml").cuts) == len(record["features"])
    code, out, err = knock("--against", "nvjpeg")
    assert (code, out) == (2, "")
    assert "There is no loader called 'nvjpeg'" in err
