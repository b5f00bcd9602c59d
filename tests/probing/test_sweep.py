from __future__ import annotations

import fcntl
import json
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from layerscope.errors import CacheError, EstimatorError
from layerscope.estimators import estimators
from layerscope.estimators.naming import make
from layerscope.probing import arrangements
from layerscope.probing.cells import size, sweep
from layerscope.report.curve import curves
from layerscope.results.durable_files import append_lines
from layerscope.results.store import Results
from layerscope.types import (
    REVISION,
    SPLITS,
    CutPoint,
    Estimator,
    LayerView,
    Score,
    Split,
    Task,
)
from layerscope.verdicts.comparison import comparisons, sentence, verdicts

N, SIZE = 1200, 4
CLASSES = 8
RNG = np.random.default_rng(7)
USUAL = np.repeat(np.int8([0, 1, 2]), [720, 240, 240])


@pytest.fixture(autouse=True)
def from_the_start(monkeypatch):
    """No test's numbers depend on which others ran before it."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(7))


def latent(name: str) -> Task:
    return Task(name, "memory", "latents", "mse", "minimise", encoding="raw")


LATENT, OTHER = latent("memory-z"), latent("memory-u")
CATEGORY = Task("memory-y", "memory", "classes", "top-1", "maximise")
RIDGE = estimators["ridge"](0)
BOTH = [RIDGE, estimators["logistic"](0)]


@dataclass
class Cache:
    """A cache in memory: features by cut, or by cut and pooling, and targets by task."""

    layers: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]
    tasks: Sequence[Task]
    checkpoint: str = "planted"
    source: str = "memory"
    fingerprint: str = "f00d"
    complete: bool = True
    splits: Mapping[str, np.ndarray] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    views: int = 1
    views_of: str = ""
    trained: bool = True
    baseline: str = ""
    baseline_of: str = ""

    @property
    def own_splits(self) -> frozenset[str]:
        return frozenset(self.splits)

    @property
    def cuts(self) -> tuple[CutPoint, ...]:
        names = list(dict.fromkeys(key.partition("@")[0] for key in self.layers))
        last = max(len(names) - 1, 1)
        return tuple(
            CutPoint(
                names.index(name),
                name,
                name,
                "head" if name.startswith("head") else "trunk",
                rows.shape[1],
                pooling or "mean",
                names.index(name) / last,
            )
            for (name, _, pooling), rows in (
                (key.partition("@"), rows) for key, rows in self.layers.items()
            )
        )

    def view(self, cut: str, pooling: str | None = None, task: str | None = None) -> View:
        found = [point for point in self.cuts if point.name == cut]
        point = next(point for point in found if pooling in (None, point.pooling))
        return View(self, point, self.splits.get(task, USUAL))


@dataclass
class View:
    cache: Cache
    cut: CutPoint
    splits: np.ndarray

    @property
    def checkpoint(self) -> str:
        return self.cache.checkpoint

    @property
    def source(self) -> str:
        return self.cache.source

    @property
    def fingerprint(self) -> str:
        return self.cache.fingerprint

    def features(self, split: Split) -> np.ndarray:
        layers = self.cache.layers
        rows = layers[self.cut.key if self.cut.key in layers else self.cut.name]
        return self.part(rows, split).astype(np.float32)

    def target(self, task: str, split: Split) -> np.ndarray:
        return self.part(self.cache.targets[task], split)

    def groups(self, split: Split) -> np.ndarray:
        return self.part((np.arange(N) // SIZE).astype(str), split)

    def views(self, split: Split) -> np.ndarray:
        return self.part(np.zeros(N, np.int64), split)

    def instances(self, split: Split) -> np.ndarray:
        return self.part(np.arange(N), split)

    def part(self, rows: np.ndarray, split: Split) -> np.ndarray:
        return rows[self.splits == SPLITS.index(split)]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def by_object(*shape: int) -> np.ndarray:
    return np.repeat(RNG.standard_normal((N // SIZE, *shape)), SIZE, axis=0)


def run(cache: Cache, out: Path, **options: Any):
    chosen = [estimators["ridge"](0), estimators["logistic"](0)]
    return sweep([cache], cache.tasks, chosen, out, **options)


def verdict_of(cache: Cache, out: Path, task: Task = LATENT):
    report = run(cache, out)
    assert not report.failed
    return next(v for v in verdicts(report.results) if v.task == task.name)


def small() -> Cache:
    rng = np.random.default_rng(1)
    z, y = rng.standard_normal(N), rng.integers(0, 3, N)
    noise = rng.standard_normal((3, N, 5))
    layers = {
        name: noise[i] + 0.5 * z[:, None] + (i + 1) * y[:, None] * np.eye(5)[0]
        for i, name in enumerate(("stem", "trunk", "head.1"))
    }
    return Cache(layers, {LATENT.name: z, CATEGORY.name: y}, (LATENT, CATEGORY))


# What a planted truth must give.


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_an_orthogonal_head_is_a_tie_and_never_a_single_winner(tmp_path, seed, correlated):
    # Standardisation and the choice of λ make three slightly different probes of the same
    # information; a test that resampled test rows alone would find winners among them.
    rng = np.random.default_rng(seed)
    trunk = rng.standard_normal((N, 16))
    if correlated:
        trunk = np.maximum(trunk @ rng.standard_normal((16, 16)), 0)
    turn = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    target = trunk @ rng.standard_normal(16) + 3 * rng.standard_normal(N)
    layers = {"trunk": trunk, "head.1": trunk @ turn, "head.2": trunk @ turn @ turn}
    verdict = verdict_of(Cache(layers, {LATENT.name: target}, (LATENT,)), tmp_path)
    assert verdict.tied == ("trunk", "head.1", "head.2")
    assert verdict.shallowest == "trunk"
    assert verdict.agrees


def test_a_head_of_too_low_rank_is_cut_at_the_trunk(tmp_path):
    y = RNG.integers(0, CLASSES, N)
    trunk = np.eye(CLASSES)[y] @ normal(CLASSES, 24) + normal(N, 24)
    head = trunk @ normal(24, 2) @ normal(2, 24)
    cache = Cache({"trunk": trunk, "head.1": head}, {CATEGORY.name: y}, (CATEGORY,))
    verdict = verdict_of(cache, tmp_path, CATEGORY)
    assert verdict.best == "trunk"
    assert verdict.tied == ("trunk",)
    assert verdict.gain_over_last.low > 0.1
    assert verdict.resamples_won["trunk"] == 1.0


def test_a_latent_is_found_at_the_depth_where_it_is_written_linearly(tmp_path):
    z = RNG.uniform(-1, 1, N)
    folded = np.stack([np.cos(7 * z), np.abs(z), np.sin(9 * z)], 1)
    straight = np.stack([z, z**2, np.sin(3 * z)], 1)
    layers = {
        name: np.concatenate((by_depth + 0.1 * normal(N, 3), normal(N, 5)), 1) @ normal(8, 8)
        for name, by_depth in (
            ("stem", folded),
            ("layer1.0", folded),
            ("layer2.0", straight),
            ("trunk", folded),
            ("head.1", np.abs(straight)),
        )
    }
    verdict = verdict_of(Cache(layers, {LATENT.name: z}, (LATENT,)), tmp_path)
    assert verdict.best == verdict.shallowest == "layer2.0"
    assert verdict.tied == ("layer2.0",)
    assert verdict.gain.low > 0
    assert "lower error than trunk" in sentence(verdict)


def test_two_tasks_are_each_cut_at_their_own_depth(tmp_path):
    z, u = by_object(1), by_object(1)
    layers = {
        "stem": np.concatenate((z + 2 * normal(N, 1), u + 2 * normal(N, 1)), 1),
        "layer1.0": np.concatenate((z + 0.1 * normal(N, 1), u + 2 * normal(N, 1)), 1),
        "trunk": np.concatenate((z + normal(N, 1), u + normal(N, 1)), 1),
        "head.1": np.concatenate((normal(N, 1), u + 0.1 * normal(N, 1)), 1),
    }
    targets = {LATENT.name: z[:, 0], OTHER.name: u[:, 0]}
    report = run(Cache(layers, targets, (LATENT, OTHER)), tmp_path)
    best = {verdict.task: verdict.tied for verdict in verdicts(report.results)}
    assert best == {LATENT.name: ("layer1.0",), OTHER.name: ("head.1",)}


def test_a_latent_that_no_layer_knows_has_no_winner(tmp_path):
    layers = {name: normal(N, 6) for name in ("stem", "trunk", "head.1")}
    verdict = verdict_of(Cache(layers, {LATENT.name: by_object()}, (LATENT,)), tmp_path)
    assert len(verdict.tied) >= 2
    assert "trunk" in verdict.tied


# A cut in several poolings is one cut.


def pooled(best: str = "cls") -> Cache:
    """Two blocks: the first knows the latent in one pooling, and nearly nothing in the other."""
    rng = np.random.default_rng(5)
    z = rng.standard_normal((N, 1))
    told = np.concatenate((z + 0.1 * rng.standard_normal((N, 1)), rng.standard_normal((N, 5))), 1)
    vague = np.concatenate((z + 3 * rng.standard_normal((N, 1)), rng.standard_normal((N, 5))), 1)
    half = np.concatenate((z + rng.standard_normal((N, 1)), rng.standard_normal((N, 5))), 1)
    other = "mean" if best == "cls" else "cls"
    layers = {
        f"blocks.0@{other}": vague,
        f"blocks.0@{best}": told,
        "trunk@cls": half,
        "trunk@mean": half @ np.linalg.qr(rng.standard_normal((6, 6)))[0],
        "head.1@none": vague[:, ::-1],
    }
    return Cache(layers, {LATENT.name: z[:, 0]}, (LATENT,))


@pytest.mark.parametrize("best", ["cls", "mean"])
def test_a_cut_stands_for_itself_in_the_pooling_that_validation_prefers(tmp_path, best):
    report = sweep([pooled(best)], [LATENT], [estimators["ridge"](0)], tmp_path)
    assert (report.computed, size([pooled(best)], pooled(best).tasks, [RIDGE])) == (5, 5)
    primary = [score for score in report.results.scores() if score.primary]
    assert {(score.cut, score.pooling) for score in primary} == {
        tuple(key.split("@")) for key in pooled(best).layers
    }
    (verdict,) = verdicts(report.results)
    assert (verdict.best, verdict.pooling, verdict.tied) == ("blocks.0", best, ("blocks.0",))
    assert list(verdict.resamples_won) == ["blocks.0", "trunk", "head.1"]
    assert sum(verdict.resamples_won.values()) == pytest.approx(1.0)
    told = next(row for row in primary if (row.cut, row.pooling) == ("blocks.0", best))
    assert verdict.value.estimate == pytest.approx(told.test)
    assert f"Pooling chosen on validation: {best} at blocks.0" in verdict.note
    (curve,) = curves(report.results.scores())
    assert curve.cuts == ("blocks.0", "trunk", "head.1")
    assert curve.points[0].value == pytest.approx(told.test)


def test_two_poolings_of_a_cut_are_never_tied_with_each_other(tmp_path):
    cache = pooled()
    del cache.layers["blocks.0@cls"], cache.layers["blocks.0@mean"]
    (verdict,) = verdicts(sweep([cache], [LATENT], [estimators["ridge"](0)], tmp_path).results)
    assert verdict.tied == ("trunk",)
    assert verdict.gain.estimate == 0.0


def test_one_more_pooling_that_is_worse_changes_no_verdict(tmp_path):
    both = sweep([pooled()], [LATENT], [estimators["ridge"](0)], tmp_path / "both").results
    cache = pooled()
    del cache.layers["blocks.0@mean"], cache.layers["trunk@mean"]
    one = sweep([cache], [LATENT], [estimators["ridge"](0)], tmp_path / "one").results
    (first,), (second,) = verdicts(both), verdicts(one)
    assert (first.best, first.tied, first.value) == (second.best, second.tied, second.value)


def test_losses_of_two_poolings_do_not_overwrite_each_other(tmp_path):
    results = sweep([pooled()], [LATENT], [estimators["ridge"](0)], tmp_path).results
    for score in results.scores():
        if score.primary:
            assert results.losses(score).test.mean() == pytest.approx(score.test)


def test_a_pooling_that_failed_leaves_its_cut_to_the_other(tmp_path):
    cache = pooled()
    cache.layers["blocks.0@cls"][3, 0] = np.nan
    (verdict,) = verdicts(sweep([cache], [LATENT], [estimators["ridge"](0)], tmp_path).results)
    assert "Left out, failed: blocks.0@cls." in verdict.note
    assert set(verdict.resamples_won) == {"blocks.0", "trunk", "head.1"}


def test_a_pooling_of_an_older_cache_has_no_say(tmp_path):
    sweep([pooled()], [LATENT], [estimators["ridge"](0)], tmp_path)
    anew = replace(pooled(), fingerprint="beef")
    del anew.layers["blocks.0@cls"]
    results = sweep([anew], [LATENT], [estimators["ridge"](0)], tmp_path).results
    (verdict,) = verdicts(results)
    assert verdict.best == "trunk"
    assert "from another cache: blocks.0@cls" in verdict.note
    (curve,) = curves(results.current(results.scores()))
    mean = next(row for row in results.scores() if row.primary and row.fingerprint == "beef")
    assert curve.points[0].value == pytest.approx(mean.test)


# What is there, what is continued, what is lost.


def test_another_metric_is_another_cell_and_the_last_one_counts(tmp_path):
    cache, probe = small(), estimators["logistic"](0)
    balanced = CATEGORY.judged_by("balanced-accuracy")
    for task, metric in (
        (CATEGORY, "top-1"),
        (balanced, "mean-per-class"),
        (CATEGORY, "top-1"),
    ):
        report = sweep([cache], [task], [probe], tmp_path)
        assert (report.computed, report.kept) == (3, 0)
        assert {it.metric for it in report.results.scores() if it.primary} == {metric}
        (verdict,) = verdicts(report.results)
        assert verdict.metric == metric
        for score in report.results.scores():
            if score.primary:
                assert 1 - report.results.losses(score).test.mean() == pytest.approx(score.test)
        again = sweep([cache], [task], [probe], tmp_path)
        assert (again.computed, again.kept) == (0, 3)


def test_measures_are_the_same_whatever_metric_probes_are_chosen_by(tmp_path):
    cache, measure = small(), make("coding-rate", 0)
    for task, computed in ((CATEGORY, 6), (CATEGORY.judged_by("nll"), 0)):
        assert sweep([cache], [task], [measure], tmp_path).computed == computed


def test_a_sweep_by_another_metric_that_was_interrupted_mixes_nothing(tmp_path):
    cache, probe = small(), estimators["ridge-classifier"](0)
    area = CATEGORY.judged_by("auroc")
    sweep([cache], [CATEGORY], [probe], tmp_path)
    first = replace(cache, layers={"stem": cache.layers["stem"]})
    report = sweep([first], [area], [probe], tmp_path)
    assert {(it.cut, it.metric) for it in report.results.scores() if it.primary} == {
        ("stem", "auroc")
    }
    (verdict,) = verdicts(report.results)
    assert list(verdict.resamples_won) == ["stem"]
    report = sweep([cache], [area], [probe], tmp_path)
    assert (report.computed, report.kept) == (2, 1)
    (verdict,) = verdicts(report.results)
    assert (list(verdict.resamples_won), verdict.metric) == (["stem", "trunk", "head.1"], "auroc")


def same(first: Sequence[Score], second: Sequence[Score]) -> bool:
    return list(map(repr, first)) == list(map(repr, second))


class Killed(Estimator):
    """An estimator whose process dies at its n-th call."""

    name = "ridge"

    def __init__(self, after: int) -> None:
        self.left = after
        self.inner = estimators["ridge"](0)

    def handles(self, task: Task) -> bool:
        return self.inner.handles(task)

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.inner.score(view, tasks)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_killed_sweep_continues_to_the_same_table(tmp_path, after):
    whole = sweep([small()], [LATENT], [estimators["ridge"](0)], tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        sweep([small()], [LATENT], [Killed(after)], tmp_path / "part")
    rest = sweep([small()], [LATENT], [estimators["ridge"](0)], tmp_path / "part")
    assert (rest.computed, rest.kept) == (3 - after, after)
    assert same(rest.results.scores(), whole.results.scores())
    assert verdicts(rest.results) == verdicts(whole.results)


def test_wherever_the_table_is_torn_the_sweep_mends_it(tmp_path):
    whole = run(small(), tmp_path).results.scores()
    table = tmp_path / "scores.jsonl"
    content = table.read_bytes()
    for cut in (1, len(content) // 3, len(content) // 2, len(content) - 1):
        table.write_bytes(content[:cut])
        assert sorted(map(repr, run(small(), tmp_path).results.scores())) == sorted(
            map(repr, whole)
        )


def test_a_repeated_call_computes_nothing(tmp_path):
    first = run(small(), tmp_path)
    before = (tmp_path / "scores.jsonl").read_bytes()
    second = run(small(), tmp_path)
    assert (first.computed, first.kept) == (6, 0)
    assert (second.computed, second.kept) == (0, 6)
    assert (tmp_path / "scores.jsonl").read_bytes() == before


def test_a_cache_made_anew_is_computed_anew(tmp_path):
    run(small(), tmp_path)
    anew = replace(small(), fingerprint="beef")
    report = run(anew, tmp_path)
    assert report.computed == 6
    assert {score.fingerprint for score in report.results.scores()} == {"beef"}


def test_replace_computes_all_and_keep_computes_nothing(tmp_path):
    nothing = run(small(), tmp_path, existing="keep")
    assert (nothing.computed, nothing.kept) == (0, 0)
    assert not (tmp_path / "scores.jsonl").exists()
    run(small(), tmp_path)
    replaced = run(small(), tmp_path, existing="replace")
    assert (replaced.computed, replaced.kept) == (6, 0)
    assert run(small(), tmp_path, existing="keep").kept == 6
    assert len(replaced.results.scores()) == 3 * (4 + 4)


def test_a_failing_cell_is_listed_and_the_run_goes_on(tmp_path):
    broken = small()
    broken.layers["trunk"][5, 2] = np.nan
    report = run(broken, tmp_path)
    assert {(score.cut, score.task) for score in report.failed} == {
        ("trunk", LATENT.name),
        ("trunk", CATEGORY.name),
    }
    assert all("not finite" in score.note for score in report.failed)
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [line["test"] for line in lines if line["status"] == "failed"] == [None, None]
    assert "NaN" not in (tmp_path / "scores.jsonl").read_text()
    found = verdicts(report.results)
    assert all("Left out, failed: trunk." in verdict.note for verdict in found)
    assert {verdict.trunk for verdict in found} == {"stem"}


def test_failed_cells_are_tried_again(tmp_path):
    broken = small()
    broken.layers["trunk"][5, 2] = np.nan
    run(broken, tmp_path)
    mended = run(small(), tmp_path)
    assert (mended.computed, mended.kept, mended.failed) == (2, 4, ())
    whole = run(small(), tmp_path / "whole")
    assert sorted(map(repr, mended.results.scores())) == sorted(map(repr, whole.results.scores()))


def test_one_broken_task_does_not_take_the_others_with_it(tmp_path):
    cache = small()
    targets = {**cache.targets, OTHER.name: np.ones(N)}
    report = run(replace(cache, targets=targets, tasks=(LATENT, OTHER)), tmp_path)
    assert {score.task for score in report.failed} == {OTHER.name}
    assert {verdict.task for verdict in verdicts(report.results)} == {LATENT.name}


class Undefined(Killed):
    """An estimator that returns what is not a number."""

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        for score in self.inner.score(view, tasks):
            yield replace(score, test=math.nan)


def test_a_value_that_is_not_a_number_is_a_failed_cell(tmp_path):
    report = sweep([small()], [LATENT], [Undefined(1)], tmp_path)
    assert len(report.failed) == 3 * 4
    assert verdicts(report.results) == []


def test_a_mistake_in_an_estimator_is_not_hidden(tmp_path):
    class Mistaken(Killed):
        def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
            raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        sweep([small()], [LATENT], [Mistaken(1)], tmp_path)


def test_an_incomplete_cache_and_a_doubled_one_are_refused(tmp_path):
    with pytest.raises(CacheError, match="incomplete"):
        run(replace(small(), complete=False), tmp_path)
    with pytest.raises(CacheError, match="Two caches"):
        sweep([small(), small()], [LATENT], [estimators["ridge"](0)], tmp_path)


def test_progress_is_called_as_often_as_announced(tmp_path):
    calls: list[str] = []
    run(small(), tmp_path, progress=lambda n, note: calls.append(note))
    assert len(calls) == size([small()], small().tasks, BOTH) == 6


def test_a_task_with_splits_of_its_own_is_fitted_and_judged_on_its_rows(tmp_path):
    cache = small()
    own = np.full(N, -1, np.int8)
    own[:200], own[400:500], own[960:1040] = 0, 1, 2
    some = replace(LATENT, name="memory-some")
    targets = {**cache.targets, some.name: cache.targets[LATENT.name]}
    divided = replace(cache, targets=targets, tasks=(*cache.tasks, some), splits={some.name: own})
    report = run(divided, tmp_path)
    assert not report.failed
    scores = {(s.cut, s.task): s for s in report.results.scores() if s.primary}
    score = scores["trunk", some.name]
    assert (score.n_train, score.n_val, score.n_test, score.n_groups) == (200, 100, 80, 20)
    alone = run(replace(divided, tasks=(some,)), tmp_path / "alone").results.scores()
    assert score in alone
    assert scores["trunk", LATENT.name].n_train == 720
    (found,) = [v for v in verdicts(report.results) if v.task == some.name]
    assert (found.n_test, found.n_groups) == (80, 20)
    assert size([divided], divided.tasks, BOTH) == 3 * 2 * 2


# The results folder.


def test_losses_groups_and_tasks_are_kept_beside_the_table(tmp_path):
    results = run(small(), tmp_path).results
    primary = [score for score in Results(tmp_path).scores() if score.primary]
    for score in primary:
        losses = results.losses(score)
        assert (len(losses.val), len(losses.test)) == (score.n_val, score.n_test)
        value = losses.test.mean() if score.direction == "minimise" else 1 - losses.test.mean()
        assert value == pytest.approx(score.test)
    groups, fingerprint = results.groups("planted", "memory", CATEGORY.name)
    assert len(set(groups)) == primary[0].n_groups == 60
    assert fingerprint == "f00d"
    assert results.tasks() == {LATENT.name: LATENT, CATEGORY.name: CATEGORY}
    assert not list(tmp_path.rglob("*.part"))


def test_losses_of_another_cache_are_refused(tmp_path):
    results = run(small(), tmp_path).results
    score = next(score for score in results.scores() if score.primary)
    with pytest.raises(Exception, match="another cache") as caught:
        results.losses(replace(score, fingerprint="beef"))
    assert caught.value.hint  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="no file"):
        results.losses(replace(score, cut="elsewhere"))


def test_cells_of_an_older_cache_are_left_out_of_the_verdict(tmp_path):
    run(small(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sweep([replace(small(), fingerprint="beef")], [LATENT], [Killed(2)], tmp_path)
    verdict = next(v for v in verdicts(Results(tmp_path)) if v.task == LATENT.name)
    assert "from another cache: head.1" in verdict.note


def test_cells_of_an_older_version_are_computed_again_and_never_compared(tmp_path):
    first = run(small(), tmp_path)
    table = tmp_path / "scores.jsonl"
    lines = table.read_text().splitlines()
    old = [line.replace(f'"revision": {REVISION}', '"revision": 1') for line in lines]
    # One cut from an older version among newer ones.
    pairs = zip(lines, old, strict=True)
    mixed = [older if '"cut": "trunk"' in line else line for line, older in pairs]
    table.write_text("".join(f"{line}\n" for line in mixed))
    verdict = next(v for v in verdicts(Results(tmp_path)) if v.task == LATENT.name)
    assert "of an older version; probe again: trunk" in verdict.note
    again = run(small(), tmp_path)
    assert (again.computed, again.kept) == (2, first.computed - 2)  # both tasks of one cut
    assert "older version" not in verdicts(Results(tmp_path))[0].note


def test_a_damaged_line_is_named(tmp_path):
    run(small(), tmp_path)
    table = tmp_path / "scores.jsonl"
    table.write_text("{}\n" + table.read_text())
    with pytest.raises(Exception, match="line 1 of"):
        Results(tmp_path).scores()


def test_names_with_slashes_stay_inside_the_folder(tmp_path):
    cache = replace(small(), checkpoint="../evil/name")
    results = run(cache, tmp_path / "results").results
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    assert verdicts(results)[0].checkpoint == "../evil/name"


def test_an_empty_folder_has_no_scores(tmp_path):
    assert Results(tmp_path / "none").scores() == []
    assert verdicts(Results(tmp_path / "none")) == []


def test_an_estimator_that_refuses_all_yields_rows_with_its_reason(tmp_path):
    class Refusing(Killed):
        def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
            raise EstimatorError("Too few rows.", hint="Add some.")

    report = sweep([small()], [LATENT], [Refusing(1)], tmp_path)
    assert [score.note for score in report.failed] == ["Too few rows. Add some."] * 3


# Arrangements: draws of training rows, seeds, folds and controls.


def test_every_arrangement_is_a_cell_and_seeds_count_where_chance_decides(tmp_path):
    ways = arrangements(["all", "10%"], ["", "width=3"], seeds=2)
    report = run(small(), tmp_path, arrangements=ways)
    assert not report.failed
    rows = {(it.train, str(it.control), it.seed) for it in report.results.scores()}
    # All rows of a layer as it is leave nothing to chance.
    assert rows == {("all", "", 0), *product(("10%",), ("", "width=3"), (0, 1))} | {
        ("all", "width=3", 0),
        ("all", "width=3", 1),
    }
    drawn = {it.n_train for it in report.results.scores() if it.train == "10%"}
    assert all(abs(rows - 72) <= SIZE for rows in drawn)  # whole groups, of 720 rows
    again = run(small(), tmp_path, arrangements=ways)
    assert (again.computed, again.kept) == (0, report.computed)


def test_verdicts_of_draws_and_controls_stand_beside_the_usual_one(tmp_path):
    ways = arrangements(["all", "20%"], ["", "shuffled"], seeds=2)
    report = run(small(), tmp_path, arrangements=ways)
    found = {(it.task, it.way): it for it in verdicts(report.results)}
    for task in (LATENT.name, CATEGORY.name):
        assert {way for name, way in found if name == task} == {
            "", "20%", "shuffled", "20%, shuffled",
        }  # fmt: skip
    assert curves(report.results.scores()) == curves(
        [it for it in report.results.scores() if it.usual]
    )
    said = sentence(found[LATENT.name, "20%, shuffled"])
    assert "[20%, shuffled]: no layer is shown to read this better than a constant (" in said


def test_seeds_are_averaged_row_by_row(tmp_path):
    report = run(small(), tmp_path, arrangements=arrangements(["20%"], seeds=3))
    scores = [it for it in report.results.scores() if it.primary and it.task == CATEGORY.name]
    of_cut = [report.results.losses(it).test for it in scores if it.cut == "trunk"]
    assert len(of_cut) == 3
    (item,) = [it for it in comparisons(report.results) if it.scores[0].task == CATEGORY.name]
    place = [it.cut for it in item.scores].index("trunk")
    np.testing.assert_allclose(item.losses[place].test, np.mean(of_cut, axis=0))


def test_folds_validate_on_all_rows_and_judge_on_the_same_test_rows(tmp_path):
    usual = run(small(), tmp_path / "usual")
    folded = run(small(), tmp_path / "folded", arrangements=arrangements(folds=4))
    one, other = (
        {(it.cut, it.task): it for it in report.results.scores() if it.primary}
        for report in (usual, folded)
    )
    assert one.keys() == other.keys()
    for cell, score in other.items():
        assert score.n_val == one[cell].n_train + one[cell].n_val
        assert score.n_test == one[cell].n_test
        assert score.train == "4 folds"
        assert len(folded.results.losses(score).val) == score.n_val
        assert score.test == pytest.approx(
            one[cell].test, abs=0.15 if score.direction == "maximise" else 0.6
        )


def test_what_an_arrangement_cannot_do_fails_its_cells_alone(tmp_path):
    report = run(small(), tmp_path, arrangements=arrangements(["all", "99999/class"]))
    assert {it.train for it in report.failed} == {"99999/class"}
    assert {it.status for it in report.results.scores() if it.train == "all"} == {"done"}


def test_a_wide_noisy_layer_does_not_win(tmp_path):
    rng = np.random.default_rng(5)
    z = rng.standard_normal((N, 1))
    good = np.concatenate((z, rng.standard_normal((N, 5))), 1)
    wide = np.concatenate((z, 4 * rng.standard_normal((N, 200))), 1)
    wide[:, 0] += rng.standard_normal(N)
    cache = Cache({"stem@mean": good, "trunk@mean": wide}, {LATENT.name: z}, (LATENT,))
    found = verdict_of(cache, tmp_path)
    assert found.best == "stem"
    assert found.tied == ("stem",)


def test_where_width_may_decide_it_is_said_and_equal_width_answers(tmp_path):
    rng = np.random.default_rng(6)
    z = rng.standard_normal((N, 1))
    noisy = [z + 1.5 * rng.standard_normal((N, width)) for width in (2, 40)]
    cache = Cache({"stem@mean": noisy[0], "trunk@mean": noisy[1]}, {LATENT.name: z}, (LATENT,))
    (alone,) = verdicts(run(cache, tmp_path / "alone").results)
    assert alone.best == "trunk"
    assert "--control width=2 tells whether width alone decides" in alone.note
    both = run(cache, tmp_path / "both", arrangements=arrangements(controls=["", "width=2"]))
    plain, _ = sorted(verdicts(both.results), key=lambda it: it.control)
    assert "At equal width (width=2)" in plain.note


def test_the_table_is_exported_for_other_programs(tmp_path):
    report = run(small(), tmp_path, arrangements=arrangements(["all", "10%"]))
    report.results.export()
    frame = report.results.to_pandas()
    read = pd.read_parquet(tmp_path / "scores.parquet")
    pd.testing.assert_frame_equal(read, frame)
    rows = pd.read_csv(tmp_path / "scores.csv", keep_default_na=False, na_values=[])
    assert len(rows) == len(frame) == len(report.results.scores())
    assert rows["train"].tolist() == frame["train"].tolist()
    np.testing.assert_allclose(rows["test"].astype(float), frame["test"])
    assert json.loads(frame["settings"][0])


def test_predictions_are_kept_on_request(tmp_path):
    usual = run(small(), tmp_path / "usual").results
    kept = run(small(), tmp_path / "kept", keep_predictions=True).results
    for score in usual.scores():
        if score.primary:
            assert usual.losses(score).predicted is None
    for score in kept.scores():
        if score.primary and score.task == CATEGORY.name:
            losses = kept.losses(score)
            right = losses.predicted == small().targets[CATEGORY.name][USUAL == 2]
            np.testing.assert_array_equal(losses.test, 1.0 - right)


def test_a_cell_that_failed_is_null_in_every_table(tmp_path):
    report = run(small(), tmp_path, arrangements=arrangements(["99999/class"]))
    report.results.export()
    (column,) = {tuple(report.results.to_arrow().column("test").to_pylist())}
    assert set(column) == {None}
    assert pd.read_parquet(tmp_path / "scores.parquet")["test"].isna().all()
    line = (tmp_path / "scores.csv").read_text().splitlines()[1]
    assert "nan" not in line.lower().replace("mean-per", "")


def test_a_table_that_another_job_writes_is_waited_for(tmp_path):
    path = tmp_path / "scores.jsonl"
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b'{"half of')
        other.flush()
        job = threading.Thread(target=append_lines, args=(path, ["mine"]))
        job.start()
        job.join(0.3)
        assert job.is_alive()
        other.write(b' a line"}\n')
    job.join()
    assert path.read_text().splitlines() == ['{"half of a line"}', "mine"]


# Measures.


def measured(cache: Cache, out: Path, *names: str, **options: Any):
    return sweep([cache], cache.tasks, [make(name, 0) for name in names], out, **options)


def test_measures_have_a_cell_of_no_labels_or_one_of_each_task_of_classes(tmp_path):
    report = measured(small(), tmp_path, "rankme", "class-separation", "coding-rate")
    found = {(s.estimator, s.task) for s in report.results.scores()}
    assert found == {
        ("rankme", "none"),
        ("class-separation", CATEGORY.name),
        ("coding-rate", "none"),
        ("coding-rate", CATEGORY.name),
    }
    assert report.computed == 3 * 4
    assert verdicts(report.results) == []


def test_draws_folds_and_shuffled_labels_make_no_other_cell_of_what_has_none_of_them(tmp_path):
    ways = arrangements(["all", "10%"], ["", "shuffled", "width=3"], seeds=2)
    report = measured(small(), tmp_path, "rankme", "fisher", arrangements=ways)
    cells = {(s.estimator, s.train, str(s.control), s.seed) for s in report.results.scores()}
    assert {train for _, train, _, _ in cells} == {"all"}
    assert {it[2:] for it in cells if it[0] == "rankme"} == {
        ("", 0),
        ("width=3", 0),
        ("width=3", 1),
    }
    assert {it[2] for it in cells if it[0] == "fisher"} == {"", "shuffled", "width=3"}


def test_cuts_of_different_widths_have_coding_rates_of_the_narrowest(tmp_path):
    cache = small()
    layers = dict(cache.layers) | {"stem": cache.layers["stem"][:, :3]}
    report = measured(replace(cache, layers=layers), tmp_path, "coding-rate")
    assert {s.settings["projected_to"] for s in report.results.scores()} == {3}


def test_a_failed_measure_is_replaced_by_its_value(tmp_path):
    cache = small()
    dead = replace(cache, layers=dict(cache.layers) | {"stem": np.ones((N, 5))})
    report = measured(dead, tmp_path, "effective-rank", "coding-rate")
    assert [(s.cut, s.metric, s.settings["convention"]) for s in report.failed] == [
        ("stem", "effective-rank", "eigenvalues-centred")
    ]
    again = measured(cache, tmp_path, "effective-rank", "coding-rate")
    assert not again.failed
    assert all(s.status == "done" for s in again.results.scores())


def test_shuffled_classes_have_no_separation_left(tmp_path):
    ways = arrangements(["all"], ["", "shuffled"])
    report = measured(small(), tmp_path, "class-separation", arrangements=ways)
    found = {(s.cut, str(s.control)): s.test for s in report.results.scores()}
    assert found["head.1", "shuffled"] < 0.1 < 0.2 < found["head.1", ""]
