"""ImageNet-C's folders, corruption by corruption, cropped and never resized."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from layerscope.data import ReadRequest, frame_preprocessing, open_source, read_image
from layerscope.data.loaders import loaders
from layerscope.data.shifts import open_shift
from layerscope.data.tasks import inc
from layerscope.errors import SettingsError, SourceError, UnknownNameError
from layerscope.types import Preprocessing
from tests.data.tasks.conftest import wnids, write_image

CLASSES = sorted(wnids(5))[1:4]
SIZE = (24, 24)
IMAGENET = Preprocessing(32, 20, (0.0,) * 3, (1.0,) * 3)


def write(root, corruptions):
    number = 0
    for name in corruptions:
        for severity in range(1, 6):
            for wnid in CLASSES:
                for _ in range(2):
                    file = f"ILSVRC2012_val_{number:08d}.JPEG"
                    write_image(root / name / str(severity) / wnid / file, number, SIZE)
                    number += 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet-c")
    write(root, [*inc.ALEXNET, *inc.EXTRA])
    return root


def test_all_corruptions_and_severities_are_conditions_in_the_papers_order(whole):
    shift = open_shift("inc", whole)
    names = [(it.family, it.severity) for it in shift.conditions]
    assert names == [(name, s) for name in (*inc.ALEXNET, *inc.EXTRA) for s in range(1, 6)]
    assert len(names) == 95
    assert [it.name for it in shift.conditions][:6] == [
        *(f"gaussian_noise-{s}" for s in range(1, 6)),
        "shot_noise-1",
    ]
    assert shift.baseline == inc.ALEXNET
    assert shift.task == "in1k"


@pytest.mark.parametrize("place", [0, 37, 94])
def test_a_condition_is_what_torchvision_finds_in_its_folder(whole, place):
    condition = open_shift("inc", whole).conditions[place]
    source = condition.open()
    judge = ImageFolder(str(whole / condition.family / str(condition.severity)))
    assert [str(source.root / name) for name in source.ids] == [path for path, _ in judge.samples]
    (task,) = source.tasks
    assert list(task.classes) == judge.classes == CLASSES
    assert source.targets[task.name].tolist() == [label for _, label in judge.samples]
    assert source.name == f"inc-{condition.family}-{condition.severity}"


def test_images_are_cropped_and_never_resized(whole):
    source = open_shift("inc", whole).conditions[0].open()
    preprocessing = frame_preprocessing(IMAGENET, source.framing)
    assert (preprocessing.resize, preprocessing.crop) == (None, 20)
    (_, images), *_ = loaders["threads"](ReadRequest(source, preprocessing, 3))
    expected = read_image(source.root / source.ids[1])[2:22, 2:22].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(images[1].numpy(), expected, atol=1e-7)


def test_a_part_of_the_corruptions_is_a_shift_too(tmp_path):
    write(tmp_path, ["fog", "brightness"])
    assert [it.name for it in open_shift("inc", tmp_path).conditions][:1] == ["fog-1"]
    shutil.rmtree(tmp_path / "fog" / "4")
    with pytest.raises(SourceError, match=r"fog' has no 4"):
        open_shift("inc", tmp_path)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(SourceError, match="holds no corruption"):
        open_shift("inc", tmp_path)
    with pytest.raises(SourceError, match="is not there"):
        open_shift("inc", tmp_path / "none")
    write(tmp_path, ["fog"])
    write_image(tmp_path / "fog/2/loose.JPEG", 1)
    with pytest.raises(SourceError, match=r"loose\.JPEG' lies in no class"):
        open_shift("inc", tmp_path).conditions[1].open()
    shutil.rmtree(tmp_path / "fog" / "3")
    (tmp_path / "fog" / "3").mkdir()
    with pytest.raises(SourceError, match="holds no image"):
        open_shift("inc", tmp_path).conditions[2].open()


def test_it_is_no_source_to_extract_and_says_where_to_go():
    with pytest.raises(SettingsError, match="inc is for evaluation") as caught:
        open_source("inc", Path("anywhere"))
    assert "layerscope evaluate CHECKPOINT --data inc=PATH" in caught.value.hint


def test_any_source_is_a_shift_of_one_condition():
    shift = open_shift("inat", Path("x"))
    assert [(it.name, it.severity) for it in shift.conditions] == [("inat", 0)]
    with pytest.raises(UnknownNameError, match="shift or image source called 'incc'"):
        open_shift("incc", Path("x"))
