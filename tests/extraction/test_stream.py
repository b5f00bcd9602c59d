"""Statistics without features: those of the cache that was never written, enough for its probes."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid

from layerscope.cache import collector, find_caches, open_cache, open_statistics
from layerscope.cache.label import write_label
from layerscope.data.sources import sources
from layerscope.errors import CacheError, LayerScopeError, UnknownNameError
from layerscope.estimators.regression import encode
from layerscope.extraction.extract import extract, plan
from layerscope.models import load
from layerscope.stats.coding_rate import coding_rate_reduction
from layerscope.stats.discriminant import linear_discriminant_analysis, nearest_class_mean
from layerscope.stats.moments import RunningCrossMoments
from layerscope.stats.ridge import ridge_path
from layerscope.stats.spectrum import spectrum
from layerscope.types import SPLITS
from tests.toy_source import HUE, ROWS, toy_source, write_place

stream = partial(extract, stream="statistics", batch_size=8, device="cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_place(tmp_path_factory.mktemp("stream"))


@pytest.fixture(scope="module")
def model(place):
    return load(str(place / "net.toml"))


@pytest.fixture(scope="module")
def source(place):
    return toy_source(place / "images")


@pytest.fixture(scope="module")
def cache(model, source, place):
    report = extract(model, source, place / "features", batch_size=8, device="cpu")
    with open_cache(report.path) as opened:
        yield opened


@pytest.fixture(scope="module")
def found(model, source, place):
    report = stream(model, source, place / "streamed")
    assert report.path.name == "net@various.statistics.hdf5"
    with open_statistics(report.path) as opened:
        yield opened


def rows(cache, cut, split, task=None):
    return cache.view(cut.name, cut.pooling, task).features(split).astype(np.float64)


def near(found, expected):
    expected = np.asarray(expected)
    scale = np.abs(expected).max(initial=1e-300)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-10, atol=1e-10 * scale)


def test_moments_by_class_are_those_of_the_caches_rows(cache, found):
    for cut in cache.cuts:
        for task in ("toy-kind", "toy-half"):
            for split in SPLITS:
                values = rows(cache, cut, split, task)
                labels = cache.view(cut.name, cut.pooling, task).target(task, split)
                moments = found.classes(cut.key, task, split)
                within = 0
                for label in range(len(moments.counts)):
                    own = values[labels == label]
                    assert moments.counts[label] == len(own)
                    if len(own):
                        near(moments.means[label], own.mean(0))
                    centred = own - (own.mean(0) if len(own) else 0)
                    within = within + centred.T @ centred
                    if split == "train":
                        near(moments.scatters[label], centred.T @ centred)
                near(moments.within, within)
                near(found.moments(cut.key, split, task).mean, values.mean(0))


def test_ridge_spectra_and_coding_rates_are_those_of_the_cache(cache, found):
    cut = cache.cuts[-2]
    values = torch.from_numpy(rows(cache, cut, "train"))
    hue = torch.from_numpy(cache.view(cut.name, cut.pooling).target("toy-hue", "train"))
    exact = RunningCrossMoments(values.shape[1], 2)
    exact.update(values, encode(hue, HUE))
    penalties = torch.tensor([1e-3, 1.0], dtype=torch.float64)
    ours = ridge_path(found.cross(cut.key, "toy-hue"))
    theirs = ridge_path(exact.compute())
    # Weights divide by small eigenvalues, so they are compared by what they predict.
    torch.testing.assert_close(
        ours.predict(values, penalties), theirs.predict(values, penalties), rtol=1e-6, atol=1e-8
    )
    near(spectrum(found.moments(cut.key)).values, spectrum(exact.compute().features).values)
    moments = found.classes(cut.key, "toy-kind")
    labels = cache.view(cut.name, cut.pooling).target("toy-kind", "train")
    seconds = torch.stack([
        values[labels == label].T @ values[labels == label] for label in range(3)
    ])  # fmt: skip
    expected = coding_rate_reduction(seconds, moments.counts, 0.5)
    assert coding_rate_reduction(
        moments.second_moments, moments.counts, 0.5
    ).reduction == pytest.approx(expected.reduction, rel=1e-9)


def test_probes_of_classes_predict_what_scikit_learns_do_on_the_caches_rows(cache, found):
    cut = cache.cuts[-1]
    values = rows(cache, cut, "train")
    labels = cache.view(cut.name, cut.pooling).target("toy-kind", "train")
    test = rows(cache, cut, "test")
    moments = found.classes(cut.key, "toy-kind")
    ours = nearest_class_mean(moments).predict(torch.from_numpy(test))
    assert ours.tolist() == NearestCentroid().fit(values, labels).predict(test).tolist()
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1).fit(values, labels)
    ours = linear_discriminant_analysis(moments, 0.1).predict(torch.from_numpy(test))
    assert ours.tolist() == lda.predict(test).tolist()


def test_classes_cross_with_features_as_zeros_and_ones(cache, found):
    cut = cache.cuts[0]
    values = rows(cache, cut, "train")
    one_hot = np.eye(3)[cache.view(cut.name, cut.pooling).target("toy-kind", "train")]
    cross = found.cross(cut.key, "toy-kind")
    near(cross.cross, (values - values.mean(0)).T @ (one_hot - one_hot.mean(0)))
    centred = one_hot - one_hot.mean(0)
    near(cross.targets.scatter, centred.T @ centred)
    near(cross.features.scatter, (values - values.mean(0)).T @ (values - values.mean(0)))


def test_an_interrupted_collection_goes_on_to_the_same_statistics(model, source, found, tmp_path):
    left = [3]

    def interrupt(rows, note=""):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(model, source, tmp_path, progress=interrupt)
    assert plan(model, source, tmp_path, stream="statistics").cache_status.rows_done == 24
    with pytest.raises(CacheError, match="incomplete and was left"):
        stream(model, source, tmp_path, existing="keep")
    report = stream(model, source, tmp_path)
    assert (report.resumed_from, report.status) == (24, "written")
    assert [path.name for path in tmp_path.iterdir()] == ["net@various.statistics.hdf5"]
    with open_statistics(report.path) as again:
        for cut in again.cuts:
            near(again.moments(cut.key).scatter, found.moments(cut.key).scatter)
            near(again.cross(cut.key, "toy-pose").cross, found.cross(cut.key, "toy-pose").cross)
            near(
                again.classes(cut.key, "toy-half").within, found.classes(cut.key, "toy-half").within
            )
    again = stream(model, source, tmp_path)
    assert (again.status, again.images_per_second) == ("there", 0.0)


def test_other_targets_are_other_statistics(model, source, tmp_path):
    few = partial(stream, cuts=model.cuts[-1:])
    few(model, source, tmp_path)
    other = replace(source, annotations="b")
    with pytest.raises(CacheError, match="differs in annotations"):
        few(model, other, tmp_path)
    assert few(model, other, tmp_path, existing="replace").status == "written"


def test_tasks_are_chosen_and_scatters_of_classes_have_their_limit(
    model, source, tmp_path, monkeypatch
):
    cuts = model.cuts[-1:]
    monkeypatch.setattr(collector, "CLASS_BYTES", 0)
    report = stream(model, source, tmp_path, cuts=cuts, tasks=["toy-kind"])
    with open_statistics(report.path) as opened:
        assert [task.name for task in opened.tasks] == ["toy-kind"]
        moments = opened.classes("head.2", "toy-kind")
        assert moments.scatters is None
        with pytest.raises(LayerScopeError, match="only their sum was kept"):
            _ = moments.second_moments
        with pytest.raises(UnknownNameError, match="toy-pose"):
            opened.cross("head.2", "toy-pose")
        with pytest.raises(UnknownNameError, match=r"head\.9"):
            opened.moments("head.9")
    with pytest.raises(UnknownNameError, match="toy-kin"):
        stream(model, source, tmp_path, tasks=["toy-kin"])


def test_unreadable_images_are_left_out(model, place, tmp_path):
    import shutil

    shutil.copytree(place / "images", tmp_path / "images")
    for row in (0, 10, 11):
        (tmp_path / "images" / f"{row:02d}.png").write_bytes(b"")
    spoilt = toy_source(tmp_path / "images")
    report = stream(model, spoilt, tmp_path / "out", cuts=model.cuts[-1:], skip_bad=True)
    assert [bad.row for bad in report.bad] == [0, 10, 11]
    with open_statistics(report.path) as opened:
        counts = {split: opened.moments("head.2", split).count for split in SPLITS}
        assert counts == {
            split: sum(spoilt.splits[r] == split for r in range(ROWS) if r not in (0, 10, 11))
            for split in SPLITS
        }


def test_a_damaged_file_and_other_files_are_refused(found, tmp_path, cache):
    copy = tmp_path / found.path.name
    content = bytearray(found.path.read_bytes())
    content[-50] ^= 1
    copy.write_bytes(content)
    with pytest.raises(CacheError, match="damaged"):
        open_statistics(copy)
    with pytest.raises(CacheError, match="holds no whole statistics"):
        open_statistics(cache.path)
    with pytest.raises(CacheError, match="There are no statistics"):
        open_statistics(tmp_path / "none")
    write_label(copy)
    with open_statistics(copy) as opened:  # the label is what told
        assert opened.checkpoint == "net"


@pytest.fixture
def door(place, monkeypatch, command_line, tmp_path):
    def knock(*words):
        monkeypatch.setitem(sources._items, "various", toy_source)
        shared = ["--data", f"various={place / 'images'}", "--device", "cpu", "-o", tmp_path]
        return command_line("extract", place / "net.toml", *shared, *words)

    return knock


def test_the_command_streams_and_probe_takes_no_statistics_for_a_cache(door, tmp_path):
    few = ("--stream", "statistics", "--cuts", "head.*", "--tasks", "toy-kind,toy-hue")
    code, out, err = door(*few, "--json")
    assert code == 0, err
    (row,) = json.loads(out)["caches"]
    assert row["status"] == "written"
    # Sums are all that is in it, and what they take was said beforehand.
    size = Path(row["path"]).stat().st_size
    assert row["bytes"] < size < row["bytes"] + 2**17
    assert "slowest: " in err
    with pytest.raises(CacheError, match="holds no cache"):
        find_caches(tmp_path)
    code, _, err = door("--tasks", "toy-kind")
    assert code == 2
    assert "--tasks 'toy-kind' says whose statistics to keep" in err
