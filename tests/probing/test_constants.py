"""A task that no layer reads has no cut, and the constant answer is never one of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerscope.estimators.constant import constant_answer
from layerscope.estimators.naming import make
from layerscope.probing import arrangements, sweep
from layerscope.probing.control import controlled
from layerscope.results.store import Results
from layerscope.types import Constant, Control, Losses, Task, Verdict
from layerscope.verdicts.comparison import (
    Comparison,
    comparisons,
    sentence,
    verdict,
    verdicts,
)
from tests.probing.test_sweep import BOTH, CATEGORY, LATENT, Cache, N, small
from tests.report.planted import score

UNKNOWN = replace(LATENT, name="memory-unknown")
GUESSED = replace(CATEGORY, name="memory-guessed")


def cache(seed: int = 0) -> Cache:
    """The cache of two tasks that layers know, with two that nothing tells."""
    rng = np.random.default_rng(seed)
    plain = small()
    nothing = {UNKNOWN.name: rng.standard_normal(N), GUESSED.name: rng.integers(0, 3, N)}
    return replace(
        plain,
        targets={**plain.targets, **nothing},
        tasks=(*plain.tasks, UNKNOWN, GUESSED),
    )


def found(out: Path, *tasks: Task, **ways) -> dict[tuple[str, str], Verdict]:
    chosen, ridge = tasks or cache().tasks, [make("ridge", 0)]
    probes = BOTH if CATEGORY in chosen else ridge
    report = sweep([cache()], chosen, probes, out, arrangements=arrangements(**ways))
    return {(it.task, it.way): it for it in verdicts(report.results)}


def test_what_no_layer_reads_is_said_and_what_layers_read_is_cut(tmp_path):
    by_task = {task: it for (task, _), it in found(tmp_path).items()}
    assert {task: it.reads for task, it in by_task.items()} == {
        LATENT.name: True,
        CATEGORY.name: True,
        UNKNOWN.name: False,
        GUESSED.name: False,
    }
    for task in (UNKNOWN, GUESSED):
        said = sentence(by_task[task.name], "Nothing")
        assert said.startswith("Nothing: no layer is shown to read this better than a constant (")
        assert "cut at" not in said
    assert sentence(by_task[LATENT.name]).startswith(f"{LATENT.name}: cut at ")


def test_the_gain_over_the_constant_is_that_of_the_rows(tmp_path):
    made = cache()
    report = sweep([made], [CATEGORY], BOTH, tmp_path)
    (item,) = comparisons(report.results)
    (it,) = verdicts(report.results)
    assert it.over_constant is not None
    labels = made.targets[CATEGORY.name]
    majority = np.bincount(labels[:720]).argmax()
    chance = np.mean(labels[960:] == majority)
    assert it.constant == pytest.approx(chance)
    assert it.over_constant.estimate == pytest.approx(it.value.estimate - chance)
    assert it.over_constant.low < it.over_constant.estimate < it.over_constant.high
    assert item.constant is not None
    assert item.constant.losses is not None
    np.testing.assert_array_equal(item.constant.losses.test, labels[960:] != majority)


def test_worse_on_validation_is_not_read_however_lucky_the_test_rows(tmp_path):
    sweep([cache()], [CATEGORY], BOTH, tmp_path)
    (item,) = comparisons(Results(tmp_path))
    assert verdict(item).reads
    unlucky = tuple(replace(it, val=np.ones_like(it.val)) for it in item.losses)
    assert verdict(replace(item, losses=unlucky)).unread


def test_the_constant_is_no_cut_and_no_line_of_the_table(tmp_path):
    made = cache()
    report = sweep([made], made.tasks, BOTH, tmp_path)
    cuts = {"stem", "trunk", "head.1"}
    assert {it.cut for it in report.results.scores()} == cuts
    assert {it.kind for it in report.results.scores()} == {"probe"}
    assert {tuple(it.cuts) for it in comparisons(report.results)} == {("stem", "trunk", "head.1")}
    assert "constant" not in (tmp_path / "scores.jsonl").read_text()
    assert report.computed == 3 * len(made.tasks)


def test_results_from_before_are_read_and_claim_nothing(tmp_path):
    made = cache()
    sweep([made], made.tasks, BOTH, tmp_path)
    for path in tmp_path.rglob("constant.*.npz"):
        path.unlink()
    table = tmp_path / "scores.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    for row in rows:
        del row["content"]
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for it in verdicts(Results(tmp_path)):
        assert (it.reads, it.constant, it.over_constant, it.unread) == (None, None, None, False)
        assert ": cut at " in sentence(it)
    # The same command again keeps the cells and adds what they are compared with.
    again = sweep([made], made.tasks, BOTH, tmp_path)
    assert again.computed == 0
    assert {it.task: it.reads for it in verdicts(again.results)}[UNKNOWN.name] is False


def test_the_constant_of_another_cache_has_no_say(tmp_path):
    made = cache()
    sweep([made], [CATEGORY], BOTH, tmp_path)
    stored = Results(tmp_path)
    kept = stored.constant("planted", "memory", CATEGORY.name)
    assert kept is not None
    stored.keep_constant("planted", "memory", CATEGORY.name, kept[0], "another")
    (it,) = verdicts(stored)
    assert it.reads is None


def test_shuffled_targets_have_a_constant_of_their_own_rows(tmp_path):
    ways = found(tmp_path, LATENT, CATEGORY, controls=("", "shuffled"), seeds=2)
    assert ways[LATENT.name, ""].reads
    assert ways[LATENT.name, "shuffled"].unread
    assert ways[CATEGORY.name, "shuffled"].unread
    seen = controlled(cache().view("stem"), Control("shuffled"), 1)
    kept = Results(tmp_path).constant("planted", "memory", LATENT.name, 1)
    assert kept is not None
    assert kept[0].losses is not None
    expected = constant_answer(seen, LATENT).losses  # type: ignore[arg-type]
    assert expected is not None
    np.testing.assert_array_equal(kept[0].losses.test, expected.test)


def test_draws_and_folds_are_compared_with_the_constant_of_all_training_rows(tmp_path):
    drawn = found(tmp_path / "drawn", LATENT, UNKNOWN, train=("20%",))
    folded = found(tmp_path / "folded", LATENT, UNKNOWN, folds=3)
    plain = found(tmp_path / "plain", LATENT, UNKNOWN)
    for task in (LATENT.name, UNKNOWN.name):
        constants = {
            drawn[task, "20%"].constant,
            folded[task, "3 folds"].constant,
            plain[task, ""].constant,
        }
        assert len(constants) == 1
    assert folded[LATENT.name, "3 folds"].reads
    assert folded[UNKNOWN.name, "3 folds"].unread


def test_a_metric_without_a_constant_is_noted(tmp_path):
    made = cache()
    sweep([made], [CATEGORY], BOTH, tmp_path)
    stored = Results(tmp_path)
    reason = Constant(note="The metric 'x' is not defined for a constant answer.")
    stored.keep_constant("planted", "memory", CATEGORY.name, reason, "f00d")
    (it,) = verdicts(stored)
    assert it.reads is None
    assert "Not compared with a constant answer. The metric 'x'" in it.note


def test_a_task_of_one_class_fails_as_it_did(tmp_path):
    plain = small()
    targets = {**plain.targets, CATEGORY.name: np.zeros(N, np.int64)}
    report = sweep([replace(plain, targets=targets)], [CATEGORY], BOTH, tmp_path)
    assert len(report.failed) == 3
    assert verdicts(report.results) == []


def test_a_task_is_called_unread_as_often_as_the_interval_promises():
    """Over many studies in which no layer knows anything, at most one in forty is called read."""
    rng, read, studies, n = np.random.default_rng(3), 0, 40, 300
    groups = np.arange(n).astype(str)
    scores = tuple(
        score(f"layer{i}", i, 2, n_train=1000, n_val=n, n_test=n, n_groups=n) for i in range(3)
    )
    for study in range(studies):
        target = rng.standard_normal((2, n))
        # Probes that follow noise: their predictions have nothing to do with the target.
        guesses = 0.03 * rng.standard_normal((3, 2, n))
        losses = tuple(Losses(*(target - guess) ** 2) for guess in guesses)
        constant = Constant(losses=Losses(*(target**2)))
        item = Comparison(scores, losses, groups, constant=constant)
        read += bool(verdict(item, resamples=200, seed=study).reads)
    assert read <= 3


def test_a_task_without_labels_has_no_constant(tmp_path):
    made = small()
    sweep([made], made.tasks, [make("rankme", 0)], tmp_path)
    assert not list(tmp_path.rglob("constant.*"))
