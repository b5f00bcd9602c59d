"""Cuts whose features are the same numbers are computed once, and are one cut in a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from layerscope.estimators import estimators, streamed_layer
from layerscope.estimators.naming import make
from layerscope.models.pooling import pool
from layerscope.models.trunks.resnet import trunk_from_recipe
from layerscope.probing import arrangements, sweep
from layerscope.types import Estimator, Interval, LayerView, Score, Task
from layerscope.verdicts.common_cut import common_cuts, find_common_cut
from layerscope.verdicts.common_cut import sentence as sentence_of_all
from layerscope.verdicts.comparison import comparisons, sentence, verdicts
from layerscope.verdicts.scorecard import scorecard
from tests.probing.test_sweep import BOTH, CATEGORY, LATENT, USUAL, Cache, N, small


class Counted(Estimator):
    """A probe that remembers at which cuts it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inner = make(name, 0)
        self.asked: Counter[str] = Counter()

    def handles(self, task: Task) -> bool:
        return self.inner.handles(task)

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        self.asked[view.cut.name] += 1
        return self.inner.score(view, tasks)


def doubled() -> Cache:
    """A network whose trunk, the best of its cuts, ends in what its last block gave."""
    plain = small()
    rng = np.random.default_rng(2)
    z, y = plain.targets[LATENT.name], plain.targets[CATEGORY.name]
    last = rng.standard_normal((N, 5)) + 2 * z[:, None] + 4 * y[:, None] * np.eye(5)[0]
    layers = {
        "stem": plain.layers["stem"],
        "layer4.0": plain.layers["trunk"],
        "layer4.1": last,
        "trunk": last.copy(),
        "head.1": plain.layers["head.1"],
    }
    return replace(plain, layers=layers)


def test_equal_cuts_are_computed_once_and_have_the_same_scores(tmp_path):
    probes = [Counted("ridge"), Counted("logistic")]
    cache = doubled()
    report = sweep([cache], cache.tasks, probes, tmp_path)
    assert (report.computed, report.copied, report.kept) == (8, 2, 0)
    for probe in probes:
        assert probe.asked == dict.fromkeys(("stem", "layer4.0", "layer4.1", "head.1"), 1)
    alone = sweep(
        [replace(cache, layers={"trunk": cache.layers["trunk"]})],
        cache.tasks,
        BOTH,
        tmp_path / "alone",
    ).results
    by_cell = {(it.cut, it.task, it.metric): it for it in report.results.scores()}
    for score in alone.scores():
        copied = by_cell["trunk", score.task, score.metric]
        assert (copied.cut, copied.index, copied.part) == ("trunk", 3, "trunk")
        assert copied.depth == 0.75
        assert replace(copied, index=score.index, depth=score.depth) == score
        if score.primary:
            kept = report.results.losses(copied)
            np.testing.assert_array_equal(kept.test, alone.losses(score).test)
    again = sweep([cache], cache.tasks, BOTH, tmp_path)
    assert (again.computed, again.copied, again.kept) == (0, 0, 10)


def test_every_way_of_probing_is_copied_and_measures_too(tmp_path):
    ways = [*arrangements(["20%"], ["width=3"], seeds=2), *arrangements(folds=2)]
    cache = doubled()
    chosen = [*BOTH, make("rankme", 0), make("class-separation", 0)]
    report = sweep([cache], cache.tasks, chosen, tmp_path, arrangements=ways, keep_predictions=True)
    assert report.computed == 4 * report.copied
    rows = {}
    for it in report.results.scores():
        if it.cut in ("layer4.1", "trunk"):
            place = (it.task, it.estimator, it.metric, it.train, str(it.control), it.seed)
            rows.setdefault(place, []).append(it)
    for first, second in rows.values():
        assert (first.test, first.val, first.settings) == (second.test, second.val, second.settings)
        if first.primary and first.kind == "probe":
            one, other = (report.results.losses(it) for it in (first, second))
            np.testing.assert_array_equal(one.predicted, other.predicted)


def test_equal_cuts_are_one_in_the_verdict_and_gain_nothing_over_themselves(tmp_path):
    cache = doubled()
    found = verdicts(sweep([cache], cache.tasks, BOTH, tmp_path).results)
    for it in found:
        assert (it.best, it.trunk) == ("trunk", "trunk")
        assert it.gain == Interval(0.0, 0.0, 0.0)
        assert "layer4.1" not in it.tied
        assert it.equal_cuts == {"trunk": ("layer4.1",)}
        assert list(it.resamples_won) == ["stem", "layer4.0", "trunk", "head.1"]
        said = sentence(it)
        assert "cut at trunk (= layer4.1)" in said
        assert "which is the usual cut" in said


def test_equal_cuts_are_one_for_all_tasks_and_for_measures(tmp_path):
    cache = doubled()
    results = sweep([cache], cache.tasks, [*BOTH, make("rankme", 0)], tmp_path).results
    items = comparisons(results)
    (found,), reasons = common_cuts(items)
    assert not reasons
    assert (found.cut, found.trunk, found.left_out) == ("trunk", "trunk", ())
    assert found.gain == found.regret == Interval(0.0, 0.0, 0.0)
    assert "One cut for all 2 tasks: trunk (= layer4.1); " in sentence_of_all(found, {})
    measures = [it for it in results.scores() if it.kind == "measure"]
    assert {it.cuts for it in scorecard(items, measures, resamples=100)} == {4}


def test_cuts_that_are_equal_for_one_task_alone_stay_two_for_all(tmp_path):
    cache = doubled()
    results = sweep([cache], cache.tasks, BOTH, tmp_path).results
    first, second = comparisons(results)
    apart = tuple(replace(it, content="") if it.cut == "layer4.1" else it for it in second.scores)
    found = find_common_cut([first, replace(second, scores=apart)], resamples=200)
    assert found.equal_cuts == {}
    assert found.left_out == ()


def test_one_number_that_differs_makes_another_cut(tmp_path):
    cache = doubled()
    cache.layers["trunk"][np.flatnonzero(USUAL == 0)[3], 2] += 1e-3
    report = sweep([cache], [LATENT], [estimators["ridge"](0)], tmp_path)
    assert (report.computed, report.copied) == (5, 0)
    (it,) = verdicts(report.results)
    assert it.equal_cuts == {}
    assert list(it.resamples_won) == ["stem", "layer4.0", "layer4.1", "trunk", "head.1"]


def test_a_cell_that_failed_is_not_copied_and_names_its_own_cut(tmp_path):
    cache = doubled()
    for cut in ("layer4.1", "trunk"):
        cache.layers[cut][:] = 1.0
    report = sweep([cache], [LATENT], [estimators["ridge"](0)], tmp_path)
    assert report.copied == 0
    assert [it.cut for it in report.failed] == ["layer4.1", "trunk"]
    for it in report.failed:
        assert repr(it.cut) in it.note


def test_layers_that_memory_does_not_hold_have_no_content_and_stay_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_layer, "memory", lambda: 0)
    report = sweep([doubled()], [LATENT], [estimators["ridge"](0)], tmp_path)
    assert report.copied == 0
    assert {it.content for it in report.results.scores()} == {""}
    (it,) = verdicts(report.results)
    assert len(it.resamples_won) == 5


@pytest.mark.parametrize("same", ["mean", "cls"])
def test_a_pooling_that_is_not_chosen_makes_no_cuts_equal(tmp_path, same):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((N, 1))
    good, poor = (
        np.concatenate((z + spread * rng.standard_normal((N, 1)), rng.standard_normal((N, 3))), 1)
        for spread in (0.3, 2.0)
    )
    other = "cls" if same == "mean" else "mean"
    layers = {f"blocks.1@{same}": poor, f"blocks.1@{other}": good, f"trunk@{same}": poor}
    cache = Cache(layers, {LATENT.name: z[:, 0]}, (LATENT,))
    (it,) = verdicts(sweep([cache], [LATENT], [estimators["ridge"](0)], tmp_path).results)
    assert (it.best, it.equal_cuts) == ("blocks.1", {})
    assert list(it.resamples_won) == ["blocks.1", "trunk"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_resnets_last_block_in_the_mean_is_the_end_of_its_trunk_to_the_bit(layout):
    network = trunk_from_recipe("resnet18", 8).eval().to(memory_format=layout)
    seen = {}
    for name in ("layer4.1", "avgpool"):
        module = network.get_submodule(name)
        module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    network(torch.randn(3, 3, 96, 96).to(memory_format=layout))
    assert seen["layer4.1"].shape[2:] == (3, 3)
    block, end = (pool(seen[name], "map", "mean") for name in ("layer4.1", "avgpool"))
    assert torch.equal(block, end)
