"""Probes of clean images on shifted ones: every number against a forward and a product by hand."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from layerscope.cache import open_cache
from layerscope.data import image_transform, open_source, read_image
from layerscope.data.shifts import open_shift
from layerscope.data.tasks import inc
from layerscope.errors import CheckpointError, SettingsError, SourceError
from layerscope.estimators import estimators
from layerscope.extraction.evaluate import evaluate
from layerscope.extraction.extract import extract
from layerscope.models import load
from layerscope.results.evaluations import shift_summaries
from layerscope.types import Preprocessing
from tests.cli.test_counts import calls
from tests.data.tasks.conftest import wnids
from tests.toy_source import CARD

__all__ = ["calls"]

CLASSES = sorted(wnids(3))
COLOURS = {CLASSES[0]: (200, 60, 60), CLASSES[1]: (60, 200, 60), CLASSES[2]: (60, 60, 200)}
SIDE = 32


def picture(wnid, rng, grey=0.0):
    """A class is a colour; the more grey the less of it is left."""
    base = np.array(COLOURS[wnid]) * (1 - grey) + 110 * grey
    pixels = np.clip(base + rng.normal(0, 30, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def write_clean(root, rng):
    for split, count in (("train", 14), ("val", 6)):
        for wnid in CLASSES:
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for k in range(count):
                picture(wnid, rng).save(folder / f"{k}.png")


def write_corrupted(root, rng, corruptions, count=4):
    for name in corruptions:
        for severity in range(1, 6):
            for wnid in CLASSES[1:]:  # fewer classes than the probes know, numbered otherwise
                folder = root / name / str(severity) / wnid
                folder.mkdir(parents=True)
                for k in range(count):
                    grey = 0.09 * severity
                    picture(wnid, rng, grey).save(folder / f"ILSVRC2012_val_{k:08d}.JPEG", "PNG")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A network, a clean cache of it, and ImageNet-C in small."""
    root = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    write_clean(root / "clean", rng)
    write_corrupted(root / "inc", rng, ["fog", "snow"])
    (root / "net.toml").write_text(CARD.format(seed=1))
    model = load(str(root / "net.toml"))
    source = open_source("folder", root / "clean")
    extract(model, source, root / "features", device="cpu")
    return root


@pytest.fixture
def model(made):
    return load(str(made / "net.toml"))


@pytest.fixture
def cache(made):
    with open_cache(made / "features" / "net@folder.h5") as opened:
        yield opened


def run(model, cache, shift, out, **more):
    return evaluate(model, cache, shift, out, task="folder", device="cpu", **more)


def trunk_features(model, paths):
    transform = image_transform(model.checkpoint.preprocessing)
    images = torch.stack([transform(read_image(path)) for path in paths])
    with torch.no_grad():
        return model.module.trunk(images).flatten(1).numpy()


def test_every_number_is_the_kept_probe_applied_to_a_plain_forward(made, model, cache, tmp_path):
    shift = open_shift("inc", made / "inc")
    report = run(model, cache, shift, tmp_path, batch_size=3)
    assert report.computed == 10
    with np.load(next(tmp_path.rglob("trunk@mean.folder.npz"))) as kept:
        probe = {name: kept[name] for name in kept.files}

    def right(rows, truth):
        rows = np.clip(rows, probe["low"], probe["high"]) * 2.0 ** -probe["exponent"][0]
        logits = (rows - probe["mean"]) * probe["scale"] @ probe["weights"] + probe["intercept"]
        return float((probe["labels"][logits.argmax(1)] == truth).mean())

    found = {it.condition: it for it in report.evaluations if it.cut == "trunk"}
    for condition in shift.conditions:
        folder = made / "inc" / condition.family / str(condition.severity)
        paths = sorted(folder.rglob("*.JPEG"))
        truth = np.array([CLASSES.index(path.parent.name) for path in paths])
        it = found[condition.name]
        assert (it.n, it.bad, it.severity) == (8, 0, condition.severity)
        assert it.top_1 == pytest.approx(right(trunk_features(model, paths), truth), abs=1e-12)
    summary = next(it for it in report.cuts if it.cut == "trunk")
    view = cache.view("trunk")
    assert summary.clean == right(view.features("test"), view.target("folder", "test"))
    assert summary.shifted == pytest.approx(np.mean([it.top_1 for it in found.values()]))
    assert 0.4 < summary.shifted < summary.clean  # the shift is felt, and not chance
    assert summary.mce is None
    assert set(summary.by_family) == {"fog", "snow"}


def test_the_clean_value_is_the_estimators_own(made, model, cache, tmp_path):
    report = run(model, cache, open_shift("inc", made / "inc"), tmp_path)
    (task,) = cache.tasks
    for summary in report.cuts:
        view = cache.view(summary.cut, summary.pooling)
        scores = {it.metric: it for it in estimators["logistic"](0).score(view, [task])}
        assert summary.clean == pytest.approx(scores["top-1"].test, abs=1e-12)


def test_with_all_fifteen_the_mean_corruption_error_is_the_definition(made, model, cache, tmp_path):
    write_corrupted(tmp_path / "inc", np.random.default_rng(1), [*inc.ALEXNET, "spatter"], 1)
    report = run(model, cache, open_shift("inc", tmp_path / "inc"), tmp_path / "out")
    for summary in report.cuts:
        ratios = []
        for name, alexnet in inc.ALEXNET.items():
            errors = [
                1 - it.top_1
                for it in report.evaluations
                if (it.cut, it.family) == (summary.cut, name)
            ]
            assert len(errors) == 5
            ratios.append(np.mean(errors) / alexnet)
        assert summary.mce == pytest.approx(np.mean(ratios), rel=1e-12)


def test_what_it_adds_up_to_is_kept_for_the_report(made, model, cache, tmp_path):
    report = run(model, cache, open_shift("inc", made / "inc"), tmp_path)
    (kept,) = shift_summaries(tmp_path)
    assert (kept.cuts, kept.chosen, kept.conditions) == (report.cuts, report.chosen, 10)
    assert kept.parts == tuple(cut.part for cut in cache.cuts)


def test_the_cut_is_chosen_on_clean_validation_alone(made, model, cache, tmp_path):
    report = run(model, cache, open_shift("inc", made / "inc"), tmp_path)
    with np.load(next(tmp_path.rglob(f"{report.chosen}.folder.npz"))) as kept:
        assert str(kept["fingerprint"]) == cache.fingerprint
    val = {}
    for cut in cache.cuts:
        with np.load(next(tmp_path.rglob(f"{cut.key}.folder.npz"))) as kept:
            view = cache.view(cut.name, cut.pooling)
            rows = (view.features("val") - kept["mean"]) * kept["scale"]
            found = kept["labels"][(rows @ kept["weights"] + kept["intercept"]).argmax(1)]
            val[cut.key] = (found == view.target("folder", "val")).mean()
    assert val[report.chosen] == max(val.values())


def test_nothing_is_streamed_twice_and_an_interrupted_run_goes_on(
    made, model, cache, tmp_path, monkeypatch
):
    shift = open_shift("inc", made / "inc")

    def interrupt(done, note=""):
        if note.startswith("fog-3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, cache, shift, tmp_path, progress=interrupt)
    table = tmp_path / "evaluations" / "net@folder" / "evaluations.jsonl"
    with table.open("a") as file:
        file.write('{"torn')
    report = run(model, cache, shift, tmp_path)
    assert report.computed == 10 - 8  # snow comes first in the paper's order
    whole = run(model, cache, shift, tmp_path / "whole")
    assert whole.computed == 10
    assert report.evaluations == whole.evaluations
    assert run(model, cache, shift, tmp_path).computed == 0
    assert run(model, cache, shift, tmp_path, limit=4).computed == 10
    assert {it.n for it in run(model, cache, shift, tmp_path, limit=4).evaluations} == {4}


def test_any_images_of_known_classes_can_be_evaluated(made, model, cache, tmp_path):
    shift = open_shift("folder", made / "clean")
    report = run(model, cache, shift, tmp_path)
    assert [it.condition for it in report.evaluations] == ["folder"] * len(cache.cuts)
    assert {it.n for it in report.evaluations} == {60}
    assert all(it.mce is None for it in report.cuts)


def test_classes_that_the_probes_do_not_know_are_refused(made, model, cache, tmp_path):
    shutil.copytree(made / "inc" / "fog", tmp_path / "fog")
    for severity in range(1, 6):
        (tmp_path / "fog" / str(severity) / CLASSES[1]).rename(
            tmp_path / "fog" / str(severity) / "n99999999"
        )
    with pytest.raises(SourceError, match="the class 'n99999999', which folder does not know"):
        run(model, cache, open_shift("inc", tmp_path), tmp_path / "out")


def test_another_network_or_task_is_refused(made, model, cache, tmp_path):
    shift = open_shift("inc", made / "inc")
    (tmp_path / "net.toml").write_text(CARD.format(seed=2))
    with pytest.raises(CheckpointError, match="was made from other weights than 'net'"):
        run(load(str(tmp_path / "net.toml")), cache, shift, tmp_path)
    sharper = Preprocessing(40, 32, (0.5,) * 3, (0.25,) * 3)
    other = replace(model.checkpoint, preprocessing=sharper)
    with pytest.raises(CheckpointError, match="other preprocessing"):
        run(replace(model, checkpoint=other), cache, shift, tmp_path)
    with pytest.raises(SettingsError, match="has no classes of 'in1k'; it has folder") as caught:
        evaluate(model, cache, shift, tmp_path, device="cpu")
    assert "--task" in caught.value.hint


def test_a_bad_image_stops_or_is_left_out_and_counted(made, model, cache, tmp_path):
    shutil.copytree(made / "inc", tmp_path / "inc")
    victim = sorted((tmp_path / "inc" / "fog" / "2").rglob("*.JPEG"))[3]
    victim.write_bytes(victim.read_bytes()[:50])
    shift = open_shift("inc", tmp_path / "inc")
    with pytest.raises(SourceError, match=victim.name):
        run(model, cache, shift, tmp_path)
    report = run(model, cache, shift, tmp_path, skip_bad=True)
    counts = {it.condition: (it.n, it.bad) for it in report.evaluations}
    assert counts["fog-2"] == (7, 1)
    assert counts["fog-1"] == (8, 0)


@pytest.fixture
def door(made, tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(made)

    def knock(*words):
        return command_line("evaluate", *words, "-o", tmp_path, "--device", "cpu")

    return knock


def test_the_command_prints_a_line_for_each_cut(door):
    code, out, err = door("net.toml", "--data", "inc=inc", "--task", "folder")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split() == ["cut", "clean", "top-1", "shifted", "top-1", "mCE"]
    assert any(line.startswith("trunk@mean") for line in lines)
    assert "10 conditions, 10 streamed now." in out
    assert "No mCE: these are missing: gaussian_noise, shot_noise" in out
    code, out, err = door("net.toml", "--data", "inc=inc", "--task", "folder", "--json")
    assert json.loads(out)["computed"] == 0


def test_the_command_loads_and_traces_once(door, calls):
    assert door("net.toml", "--data", "inc=inc", "--task", "folder", "--limit", "2")[0] == 0
    assert calls == {"load": 1, "trace": 1}


def test_the_command_says_what_is_wrong(door):
    for words, message in (
        (("net.toml", "--data", "inc"), "does not say which source lies where"),
        (("net.toml", "--data", "inc=none"), "The folder 'none' is not there"),
        (("net.toml", "--data", "inc=inc"), "holds no cache of 'net' with classes of 'in1k'"),
        (("net.toml", "--data", "inc=inc", "--probes", "nowhere"), "no file or folder 'nowhere'"),
    ):
        code, out, err = door(*words)
        assert (code, out) == (2, "")
        assert message in err
        assert "Hint:" in err
