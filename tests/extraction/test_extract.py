"""Extraction: the features are the network's, in source order, whatever happens on the way."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from layerscope.cache import choose_storage, open_cache
from layerscope.data import image_transform, read_image
from layerscope.data.sources import sources
from layerscope.errors import CacheError, CheckpointError, DeviceError, SourceError
from layerscope.extraction.capture import relative_difference, state_hash
from layerscope.extraction.extract import extract as extract_as_asked
from layerscope.extraction.extract import plan as plan_as_asked
from layerscope.models.cuts import Stop, cut_points, trace
from layerscope.runtime.device import choose_device
from layerscope.runtime.ranks import ALONE, Ranks
from layerscope.types import SPLITS, Checkpoint, CutPoint, Preprocessing, Source, Task
from tests.toy_source import CARD

# Exactly what a network gives is kept by float32 alone; float16 has tests of its own.
extract = partial(extract_as_asked, storage="float32")
plan = partial(plan_as_asked, storage="float32")
ROWS = 17
SIDE = 10
NUMBER = Task("toy-number", "toy", "latents", "mse", "minimise", encoding="raw")
PREPROCESSING = Preprocessing(8, 8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


class Toy(nn.Module):
    """A trunk with an in-place ReLU behind a tapped BatchNorm, and a head of two layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.first = nn.Linear(6, 5)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Linear(5, 4)

    def forward(self, images):
        trunk = self.flat(self.pool(self.relu(self.bn(self.conv(images)))))
        return self.last(self.act(self.first(trunk)))


@dataclass(frozen=True)
class Model:
    checkpoint: Checkpoint
    module: nn.Module
    cuts: tuple[CutPoint, ...]


STOPS = (
    Stop("stem", "bn", "trunk"),
    Stop("trunk", "flat", "trunk"),
    Stop("head.1", "first", "head"),
    Stop("head.2", "last", "head"),
)


def toy_model(kind=Toy, preprocessing=PREPROCESSING):
    torch.manual_seed(3)
    module = kind()
    for statistic, spread in ((module.bn.running_mean, 0.3), (module.bn.running_var, 0.0)):
        statistic.add_(spread * torch.randn(6))
    return Model(
        Checkpoint(
            name="toy-net",
            family="toy",
            architecture={"kind": kind.__name__},
            weights=None,
            sha256=state_hash(module),
            preprocessing=preprocessing,
            head="2 layers",
            licence="",
            citation="",
            seed=3,
        ),
        module,
        cut_points(trace(module, 8), STOPS),
    )


def toy_source(root):
    index = np.arange(ROWS)
    return Source(
        name="toy",
        ids=tuple(f"{i:02d}.png" for i in index),
        splits=np.array(SPLITS)[index % 3],
        groups=np.array([f"object{i // 2}" for i in index]),
        tasks=(NUMBER,),
        targets={"toy-number": index[:, None] / 10},
        manifest="m",
        annotations="a",
        root=root,
    )


@pytest.fixture
def model():
    return toy_model()


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    generator = np.random.default_rng(0)
    for i in range(ROWS):
        pixels = generator.integers(0, 256, (SIDE, SIDE + i % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02d}.png")
    return toy_source(root)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "features"


def by_hand(module, source):
    """The features by the formulas of the layers, one image at a time, without a hook."""
    transform = image_transform(PREPROCESSING)
    rows = {cut: [] for cut in ("stem", "trunk", "head.1", "head.2")}
    with torch.no_grad():
        for name in source.ids:
            image = transform(read_image(source.root / name))[None]
            bn = module.bn
            maps = F.conv2d(image, module.conv.weight)
            maps = F.batch_norm(maps, bn.running_mean, bn.running_var, bn.weight, bn.bias)
            trunk = F.relu(maps).mean(dim=(2, 3))
            first = F.linear(trunk, module.first.weight, module.first.bias)
            last = F.linear(F.relu(first), module.last.weight, module.last.bias)
            for cut, value in zip(rows, (maps.mean(dim=(2, 3)), trunk, first, last), strict=True):
                rows[cut].append(value[0].numpy())
    return {cut: np.stack(values) for cut, values in rows.items()}


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 9, ROWS])
def test_the_sample_that_decides_storage_is_the_same_with_every_batch_size(
    model, source, out, monkeypatch, rows
):
    sizes, samples = (64, 7, 5, 2, 1), []

    def choose(sample, asked):
        samples.append(sample["stem@mean"])
        return choose_storage(sample, asked)

    monkeypatch.setattr("layerscope.extraction.job.choose_storage", choose)
    for size in sizes:
        given = {"batch_size": size, "limit": rows, "device": "cpu"}
        extract_as_asked(model, source, out / str(size), **given)
    first, *others = samples
    assert len(first) == min(rows, 8) // 2 * 2 or rows == len(first) == 1
    assert len(others) == len(sizes) - 1
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5, atol=1e-6)


def stored(path):
    """The features by cut, where each is in the file in one pooling."""
    with h5py.File(path) as file:
        found = {key.rpartition("@")[0]: rows[:] for key, rows in file["features"].items()}
        assert len(found) == len(file["features"])
        return found


def assert_close(first, second):
    assert first.keys() == second.keys()
    for name, rows in first.items():
        np.testing.assert_allclose(rows, second[name], rtol=1e-5, atol=1e-6, err_msg=name)


def assert_identical(first, second):
    assert first.keys() == second.keys()
    for name, rows in first.items():
        np.testing.assert_array_equal(rows, second[name], err_msg=name)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (4, 3), (64, 2)])
def test_features_are_those_of_a_plain_forward_in_source_order(
    model, source, out, batch_size, workers
):
    report = extract(model, source, out, batch_size=batch_size, workers=workers, device="cpu")
    expected = by_hand(model.module, source)
    assert (expected["stem"] < -0.01).any()  # an in-place ReLU behind it would have shown
    assert (expected["head.1"] < -0.01).any()
    assert_close(stored(report.path), expected)
    assert (report.status, report.rows, report.bad) == ("written", ROWS, ())


def test_the_cache_is_readable_by_split_with_its_targets(model, source, out):
    report = extract(model, source, out, device="cpu")
    expected = by_hand(model.module, source)
    with open_cache(report.path) as cache:
        assert cache.cuts == model.cuts
        assert cache.fingerprint == report.fingerprint
        assert cache.computation["device"] == "cpu"
        assert cache.computation["batch_size"] == 64
        assert cache.computation["state_sha256"] == state_hash(model.module)
        assert "torch" in cache.computation["versions"]
        for split in SPLITS:
            rows = np.flatnonzero(source.splits == split)
            view = cache.view("head.2")
            np.testing.assert_allclose(view.features(split), expected["head.2"][rows], atol=1e-6)
            np.testing.assert_array_equal(view.target("toy-number", split)[:, 0], rows / 10)


def test_a_network_in_train_mode_is_read_in_eval_mode_and_given_back(model, source, out):
    model.module.train()
    model.module.first.eval()
    before = state_hash(model.module)
    report = extract(model, source, out, batch_size=4, device="cpu")
    assert_close(stored(report.path), by_hand(model.module, source))
    assert state_hash(model.module) == before
    assert model.module.bn.training
    assert not model.module.first.training


class DriftingBatchNorm(nn.BatchNorm2d):
    """Uses the batch's statistics and moves its own, whatever mode it is said to be in."""

    def forward(self, maps):
        return F.batch_norm(maps, self.running_mean, self.running_var, training=True)


class Drifting(Toy):
    def __init__(self):
        super().__init__()
        self.bn = DriftingBatchNorm(6)


class LateDrifting(Toy):
    """Changes a buffer outside the state dict, from the second batch on."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.register_buffer("memory", torch.zeros(2), persistent=False)

    def forward(self, images):
        self.calls += 1
        if self.calls > 2:  # the first call was the trace for cut points
            self.memory += 1
        return super().forward(images)


@pytest.mark.parametrize(
    ("kind", "hint"), [(Drifting, "No row was written"), (LateDrifting, "rows were thrown away")]
)
def test_features_of_a_network_that_changes_are_not_kept(source, out, kind, hint):
    with pytest.raises(CheckpointError, match="changed its own parameters or buffers") as caught:
        extract(toy_model(kind), source, out, batch_size=4, device="cpu")
    assert hint in caught.value.hint
    assert not list(out.glob("*.h5"))
    for part in out.glob("*.part"):
        with h5py.File(part) as file:
            assert not file["rows/state"][:].any()


def kill_after(images, out, batches):
    """Run in a process of its own: extract, and die by SIGKILL after some batches."""
    left = [batches]

    def deadly(rows, note=""):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    extract(toy_model(), toy_source(images), out, batch_size=3, device="cpu", progress=deadly)


def test_a_killed_extraction_resumes_to_the_same_bits(model, source, out, tmp_path):
    whole = extract(model, source, tmp_path / "whole", batch_size=3, device="cpu")
    code = (
        "import importlib.util, sys; from pathlib import Path\n"
        "spec = importlib.util.spec_from_file_location('case', sys.argv[1])\n"
        "case = importlib.util.module_from_spec(spec); sys.modules['case'] = case\n"
        "spec.loader.exec_module(case)\n"
        "case.kill_after(Path(sys.argv[2]), Path(sys.argv[3]), 2)"
    )
    child = [sys.executable, "-c", code, __file__, str(source.root), str(out)]
    root = Path(__file__).parents[2]  # where the package of the tests is found
    assert subprocess.run(child, check=False, cwd=root).returncode == -signal.SIGKILL
    part = out / "toy-net@toy.h5.part"
    with pytest.raises(CacheError, match="incomplete"):
        open_cache(part)
    assert plan(model, source, out).remaining == ROWS - 6

    report = extract(model, source, out, batch_size=3, device="cpu")
    assert (report.resumed_from, report.status) == (6, "written")
    assert_identical(stored(report.path), stored(whole.path))
    assert report.fingerprint == whole.fingerprint
    assert not part.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_keeps_finished_rows_and_stops_the_threads(model, source, out, error):
    def interrupt(rows, note=""):
        raise error

    with pytest.raises(error):
        extract(model, source, out, batch_size=5, device="cpu", progress=interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert plan(model, source, out).cache_status.rows_done == 5
    report = extract(model, source, out, batch_size=5, device="cpu")
    assert report.resumed_from == 5
    assert_close(stored(report.path), by_hand(model.module, source))


def test_each_rank_is_told_how_many_rows_it_computes_in_whole_batches(model, source, out):
    planned = plan(model, source, out, batch_size=4)
    shares = [planned.share(Ranks(rank, 3)) for rank in range(3)]
    assert sum(shares) == ROWS
    assert [share % 4 for share in shares[:-1]] == [0, 0]
    one = replace(planned, cache_status=replace(planned.cache_status, missing=np.array([5])))
    assert one.share(ALONE) == 4


def test_repeating_a_finished_extraction_computes_nothing(model, source, out):
    first = extract(model, source, out, device="cpu")
    before = first.path.stat().st_mtime_ns

    def forward(images):
        raise AssertionError("computed")

    model.module.forward = forward
    for existing in ("keep", "missing"):
        again = extract(model, source, out, device="cpu", existing=existing)
        assert (again.status, again.rows, again.images_per_second) == ("there", ROWS, 0.0)
    assert first.path.stat().st_mtime_ns == before
    with pytest.raises(AssertionError, match="computed"):
        extract(model, source, out, device="cpu", existing="replace")


def test_other_weights_under_the_same_name_are_refused(model, source, out):
    extract(model, source, out, device="cpu")
    other = replace(model, checkpoint=replace(model.checkpoint, sha256="other"))
    with pytest.raises(CacheError, match="differs in weights"):
        extract(other, source, out, device="cpu")
    report = extract(other, source, out, device="cpu", existing="replace")
    assert report.status == "written"


def test_other_targets_for_the_same_images_cost_no_second_extraction(model, source, out):
    first = extract(model, source, out, device="cpu")
    features = stored(first.path)
    other = replace(source, targets={"toy-number": -source.targets["toy-number"]}, annotations="b")

    def forward(images):
        raise AssertionError("computed")

    plain, model.module.forward = model.module.forward, forward
    report = extract(model, other, out, device="cpu")
    assert (report.status, report.images_per_second) == ("annotated", 0.0)
    assert report.fingerprint != first.fingerprint
    assert_identical(stored(report.path), features)
    with open_cache(report.path) as cache:
        rows = np.flatnonzero(source.splits == "val")
        np.testing.assert_array_equal(
            cache.view("trunk").target("toy-number", "val")[:, 0], -rows / 10
        )
    assert extract(model, other, out, device="cpu").status == "there"
    model.module.forward = plain
    moved = replace(source, manifest="n")
    with pytest.raises(CacheError, match="differs in annotations, images"):
        extract(model, moved, out, device="cpu")


def test_an_unreadable_image_stops_and_finished_rows_stay(model, source, out):
    (source.root / "09.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(SourceError, match=r"09\.png' cannot be read"):
        extract(model, source, out, batch_size=4, device="cpu")
    assert plan(model, source, out).cache_status.rows_done == 8


def test_skipped_images_are_reported_and_move_no_other_row(model, source, out):
    expected = by_hand(model.module, source)
    bad = [0, 8, 9, 10, 11]  # with batches of four, a whole batch among them
    for row in bad:
        (source.root / source.ids[row]).write_bytes(b"\x89PNG broken")
    report = extract(model, source, out, batch_size=4, device="cpu", skip_bad=True)
    assert [(found.row, found.id) for found in report.bad] == [(r, source.ids[r]) for r in bad]
    for name, rows in stored(report.path).items():
        assert np.isnan(rows[bad]).all()
        good = np.setdiff1d(np.arange(ROWS), bad)
        np.testing.assert_allclose(rows[good], expected[name][good], atol=1e-5)
    with open_cache(report.path) as cache:
        view = cache.view("trunk")
        ids = np.concatenate([view.ids(split) for split in SPLITS])
        assert sorted(ids) == sorted(np.delete(source.ids, bad))
        assert all(np.isfinite(view.features(split)).all() for split in SPLITS)
    again = extract(model, source, out, device="cpu")
    assert [found.row for found in again.bad] == bad


def test_skipped_images_of_an_earlier_run_are_still_reported_after_resuming(model, source, out):
    def interrupt(rows, note=""):
        raise KeyboardInterrupt

    for row in (1, 12):
        (source.root / source.ids[row]).write_bytes(b"")
    with pytest.raises(KeyboardInterrupt):
        extract(model, source, out, batch_size=4, device="cpu", skip_bad=True, progress=interrupt)
    report = extract(model, source, out, batch_size=4, device="cpu", skip_bad=True)
    assert [found.row for found in report.bad] == [1, 12]


class Overflowing(Toy):
    def forward(self, images):
        trunk = self.flat(self.pool(self.relu(self.bn(self.conv(images)))))
        hidden = self.first(trunk)
        bright = (images.mean(dim=(1, 2, 3)) > 4)[:, None]
        return self.last(torch.where(bright, torch.inf, hidden))


def test_features_that_are_not_finite_name_the_cut_and_the_image(source, out):
    Image.new("RGB", (SIDE, SIDE), "white").save(source.root / "06.png")
    dark = Preprocessing(8, 8, (0.0,) * 3, (0.2,) * 3)
    for row in set(range(ROWS)) - {6}:
        Image.new("RGB", (SIDE, SIDE), (row, 0, 0)).save(source.root / source.ids[row])
    with pytest.raises(CheckpointError, match=r"cut 'head\.2' .* not finite for '06\.png'"):
        extract(toy_model(Overflowing, dark), source, out, batch_size=4, device="cpu")


def test_bfloat16_may_be_stored_in_float32_and_its_difference_is_measured(model, source, out):
    exact = stored(extract(model, source, out / "exact", batch_size=ROWS, device="cpu").path)
    report = extract(model, source, out, batch_size=ROWS, device="cpu", precision="bfloat16")
    rounded = stored(report.path)
    difference = {key.rpartition("@")[0]: v for key, v in report.bfloat16_difference.items()}
    assert set(difference) == set(exact)
    for name, rows in rounded.items():
        assert rows.dtype == np.float32
        sample = np.linspace(0, ROWS - 1, 8).round().astype(int)
        gap, size = (rows - exact[name])[sample], exact[name][sample]
        expected = np.linalg.norm(gap) / np.linalg.norm(size)
        assert difference[name] == pytest.approx(expected, rel=1e-2)
        assert 1e-5 < expected < 0.05
    with open_cache(report.path) as cache:
        assert cache.computation["bfloat16_difference"] == report.bfloat16_difference
        assert cache.computation["precision"] == "bfloat16"


def test_float32_reports_no_difference(model, source, out):
    assert extract(model, source, out, device="cpu").bfloat16_difference is None


def test_a_relative_difference_is_scale_free():
    rows = np.float32([[3.0, 4.0]])
    assert relative_difference(rows * 1.5, rows) == pytest.approx(0.5)
    assert relative_difference(0 * rows, 0 * rows) == 0.0
    assert relative_difference(rows, 0 * rows) == 1.0


def test_a_limit_has_a_file_of_its_own_and_the_same_features(model, source, out):
    everything = stored(extract(model, source, out, device="cpu").path)
    report = extract(model, source, out, device="cpu", limit=6)
    assert report.path.name == "toy-net@toy.limit6.h5"
    with open_cache(report.path) as cache:
        assert (cache.rows, cache.limit) == (6, 6)
        assert [len(cache.rows_of(split)) for split in SPLITS] == [2, 2, 2]
        rows = [source.ids.index(name) for name in cache.view("trunk").ids("test")]
        np.testing.assert_allclose(
            cache.view("trunk").features("test"), everything["trunk"][rows], atol=1e-6
        )
    assert extract(model, source, out, device="cpu", limit=7).fingerprint != report.fingerprint


def test_chosen_cuts_are_the_same_features_as_among_all(model, source, out):
    everything = stored(extract(model, source, out / "all", device="cpu").path)
    report = extract(model, source, out, cuts=model.cuts[2:], device="cpu")
    some = stored(report.path)
    assert list(some) == ["head.1", "head.2"]
    assert_identical(some, {name: everything[name] for name in some})
    with open_cache(report.path) as cache:
        assert [cut.depth for cut in cache.cuts] == [cut.depth for cut in model.cuts[2:]]


def test_a_cut_whose_width_is_wrong_is_refused(model, source, out):
    wrong = (replace(model.cuts[0], width=7),)
    with pytest.raises(CheckpointError, match=r"'stem' gives features of shape \(8, 6\)"):
        extract(model, source, out, cuts=wrong, device="cpu")


def test_hooks_are_gone_afterwards(model, source, out):
    extract(model, source, out, device="cpu")
    assert not any(part._forward_hooks for part in model.module.modules())


def test_a_device_that_is_not_there_is_an_error_and_auto_is_not():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("cuda:99", "cpu:1", "xla", "nonsense"):
        with pytest.raises(DeviceError, match=name) as caught:
            choose_device(name)
        assert "--device auto" in caught.value.hint


# Through the door: the same as a user types it.


@pytest.fixture
def place(source, tmp_path, monkeypatch):
    sources.names()
    monkeypatch.setitem(sources._items, "toy", toy_source)
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        Path(f"net{seed}.toml").write_text(CARD.format(seed=seed))


@pytest.fixture
def door(place, command_line):
    return partial(command_line, "extract")


DATA = ("--data", "toy=images", "--device", "cpu")
HALF = {"rtol": 1e-3, "atol": 1e-5}


def test_the_command_writes_resumable_caches_and_its_settings(door):
    code, out, err = door("net1.toml", "net2.toml", *DATA, "--batch-size", "8", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [Path(row["path"]).name for row in found["caches"]] == [
        "net1@toy.h5",
        "net2@toy.h5",
    ]
    assert [row["status"] for row in found["caches"]] == ["written"] * 2
    assert "Device: cpu" in err
    with open_cache(Path("features/net1@toy.h5")) as cache:
        assert cache.cuts[-1].name == "head.2"
        assert cache.view("head.2").features("train").shape == (6, 6)
        trunk = cache.view("trunk").features("train")
    with open_cache(Path("features/net2@toy.h5")) as cache:
        assert not np.allclose(cache.view("trunk").features("train"), trunk)
    settings = json.loads(Path("features/settings.json").read_text())["extract"]
    assert settings["batch_size"] == 8
    assert settings["data"] == ["toy=images"]
    again = json.loads(door("net1.toml", *DATA, "--json")[1])
    assert again["caches"][0]["status"] == "there"


def test_the_door_and_the_library_agree_with_the_network_itself(door, source):
    from layerscope.models import load

    assert door("net1.toml", *DATA)[0] == 0
    model = load("net1.toml")
    transform = image_transform(model.checkpoint.preprocessing)
    images = torch.stack([transform(read_image(source.root / name)) for name in source.ids])
    with torch.no_grad():
        trunk = model.module.trunk(images).flatten(1)
        embedding = model.module(images)
    found = stored("features/net1@toy.h5")
    np.testing.assert_allclose(found["trunk"], trunk, **HALF)
    np.testing.assert_allclose(found["head.2"], embedding, **HALF)


def test_a_dry_run_says_how_much_and_writes_nothing(door):
    code, out, _ = door("net1.toml", *DATA, "--dry-run", "--json")
    (row,) = json.loads(out)["caches"]
    assert code == 0
    assert row["status"] == "new"
    assert not Path("features").exists()
    door("net1.toml", *DATA)
    values = sum(rows.size for rows in stored("features/net1@toy.h5").values())
    assert row["bytes"] == 2 * values + 4 * ROWS * row["cuts"]  # features and their checksums
    assert row["images"] == ROWS


def test_cuts_are_chosen_by_globs(door):
    assert door("net1.toml", *DATA, "--cuts", "trunk,head.*")[0] == 0
    assert list(stored("features/net1@toy.h5")) == ["head.1", "head.2", "trunk"]
    code, _, err = door("net1.toml", *DATA, "--cuts", "layer9", "--existing", "replace")
    assert code == 2
    assert "There is no layer called 'layer9'" in err
    assert "Nearest:" in err


def test_several_poolings_are_captured_in_one_pass(door, source):
    from layerscope.models import load

    words = ("net1.toml", *DATA, "--cuts", "stem,trunk,head.*", "--pooling", "mean,max")
    assert door(*words)[0] == 0
    with h5py.File("features/net1@toy.h5") as file:
        found = {name: rows[:] for name, rows in file["features"].items()}
    assert set(found) == {"stem@mean", "stem@max", "trunk@mean", "head.1@none", "head.2@none"}
    model = load("net1.toml")
    transform = image_transform(model.checkpoint.preprocessing)
    images = torch.stack([transform(read_image(source.root / name)) for name in source.ids])
    with torch.no_grad():
        trunk = model.module.trunk
        stem = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
    np.testing.assert_allclose(found["stem@max"], stem.amax((2, 3)), **HALF)
    np.testing.assert_allclose(found["stem@mean"], stem.mean((2, 3)), **HALF)
    with open_cache(Path("features/net1@toy.h5")) as cache:
        assert [cut.index for cut in cache.cuts][:2] == [0, 0]
    settings = json.loads(Path("features/settings.json").read_text())["extract"]
    assert (settings["pooling"], settings["branch"]) == ("mean,max", None)
    code, out, err = door("net1.toml", "net2.toml", *DATA, "--pooling", "cls")
    assert (code, out) == (2, "")
    assert "Error: net2.toml: The pooling 'cls' fits none of the chosen cuts" in err


def test_each_branch_of_one_file_has_a_cache_of_its_own(door):
    from tests.models.families.test_moco import example

    torch.save(example().contents, "run.pth.tar")
    few = ("--limit", "3", "--cuts", "head.*", "--image-size", "32")
    for words in ((), ("--branch", "momentum")):
        code, _, err = door("run.pth.tar", *DATA, *few, *words)
        assert code == 0, err
    names = ["run+32px@toy.limit3.h5", "run+momentum+32px@toy.limit3.h5"]
    assert sorted(path.name for path in Path("features").glob("*.h5")) == names
    online, momentum = (stored(Path("features") / name) for name in names)
    assert not np.allclose(online["head.2"], momentum["head.2"])
    with open_cache(Path("features") / names[1]) as cache:
        assert cache.card.declared == {"branch": "momentum", "image_size": 32}
        assert cache.checkpoint == "run+momentum+32px"


def test_notes_about_a_network_are_said(door):
    from torch import nn as layers

    Path("nets_of_extract.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Conv2d(3, 4, 3, 2))\n"
    )
    torch.save(layers.Sequential(layers.Conv2d(3, 4, 3, 2)).state_dict(), "mine.pth")
    words = ("--arch", "nets_of_extract:make", "--image-size", "32", "--limit", "3", "--json")
    code, out, err = door("mine.pth", *DATA, *words)
    assert code == 0, err
    assert "mine+32px: How its images were prepared is not known" in err
    assert "Note" not in out
    json.loads(out)


def test_one_bad_checkpoint_does_not_cost_the_others(door):
    Path("broken.safetensors").write_bytes(b"\x01")
    code, out, err = door("broken.safetensors", "net1.toml", *DATA, "--json")
    found = json.loads(out)
    assert code == 1
    assert [row["checkpoint"] for row in found["caches"]] == ["net1"]
    assert [row["checkpoint"] for row in found["failed"]] == ["broken.safetensors"]
    assert "broken.safetensors" in err
    code, out, _ = door("broken.safetensors", *DATA)
    assert (code, out) == (2, "")


def test_data_without_a_name_is_explained(door):
    for pair in ("images", "=images", "toy="):
        code, out, err = door("net1.toml", "--data", pair)
        assert (code, out) == (2, "")
        assert f"--data '{pair}' does not say which source" in err
        assert "NAME=PATH" in err


def test_wrong_words_are_answered_in_two_lines(door):
    for words, expected in (
        (("--data", "tyo=images"), "no image source called 'tyo'"),
        (("--data", "toy=images", "--device", "cuda:77"), "The device 'cuda:77' is not there"),
    ):
        code, out, err = door("net1.toml", *words)
        assert (code, out) == (2, "")
        assert expected in err
        assert "Traceback" not in err
        assert len(err.strip().splitlines()) == 2


def test_an_empty_folder_is_named(door):
    Path("empty").mkdir()
    code, _, err = door("net1.toml", "--data", "objects3d=empty")
    assert code == 2
    assert "'empty' has no latents.csv" in err


def test_skipped_images_are_listed_and_change_the_exit_code(door, source):
    (source.root / "05.png").write_bytes(b"")
    code, _, err = door("net1.toml", *DATA)
    assert code == 2
    assert "05.png" in err and "--skip-bad-images" in err
    for status in ("written", "there"):
        code, out, err = door("net1.toml", *DATA, "--skip-bad-images", "--json")
        (row,) = json.loads(out)["caches"]
        assert (code, row["status"]) == (1, status)
        assert [bad["id"] for bad in row["bad"]] == ["05.png"]
        assert "Skipped row 5, 05.png" in err


def test_ctrl_c_keeps_rows_and_says_so(door, monkeypatch):
    from layerscope.cache import AssignmentWriter

    write = AssignmentWriter.write

    def interrupted(self, rows, features, valid):
        if self.rows_done == 8:
            raise KeyboardInterrupt
        write(self, rows, features, valid)

    with monkeypatch.context() as patched:
        patched.setattr(AssignmentWriter, "write", interrupted)
        code, _, err = door("net1.toml", *DATA, "--batch-size", "4")
    assert code == 130
    assert "the same command continues it" in err
    code, out, err = door("net1.toml", *DATA, "--json")
    assert json.loads(out)["caches"][0]["resumed_from"] == 8
    assert "8 rows are there." in err


def test_help_needs_no_torch_and_ends_with_examples():
    code = (
        "import sys; from layerscope.cli.main import main\n"
        "sys.argv = ['layerscope', 'extract', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'h5py', 'PIL'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "layerscope extract" in found.stdout.split("Examples:")[1]


@pytest.mark.gpu
def test_a_gpu_gives_the_features_of_the_cpu(model, source, tmp_path):
    on_cpu = extract(model, source, tmp_path / "cpu", device="cpu", batch_size=4)
    on_gpu = extract(model, source, tmp_path / "gpu", device="cuda", batch_size=4)
    assert on_cpu.fingerprint == on_gpu.fingerprint
    with open_cache(on_cpu.path) as ours, open_cache(on_gpu.path) as theirs:
        for cut in model.cuts:
            for split in SPLITS:
                here, there = (one.view(cut.name).features(split) for one in (ours, theirs))
                np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)
