"""How often a sweep reads a layer, and how long it keeps it."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layerscope.probing.sweep import sweep

from layerscope.estimators import streamed_layer
from layerscope.estimators.naming import make
from layerscope.probing import arrangements
from layerscope.probing.held_view import HeldRowsView, held
from layerscope.types import SPLITS, Split
from tests.probing.test_sweep import CATEGORY, LATENT, Cache, View, small

ONCE = {(cut, split): 1 for cut in ("stem", "trunk", "head.1") for split in SPLITS}


@dataclass
class CountedCache(Cache):
    reads: Counter[tuple[str, str]] = field(default_factory=Counter)
    alive: dict[str, list[weakref.ref[np.ndarray]]] = field(default_factory=dict)

    def view(self, cut: str, pooling: str | None = None, task: str | None = None) -> View:
        plain = super().view(cut, pooling, task)
        return CountedView(plain.cache, plain.cut, plain.splits)


class CountedView(View):
    cache: CountedCache

    def features(self, split: Split) -> np.ndarray:
        for cut, arrays in self.cache.alive.items():
            assert cut == self.cut.name or not any(array() is not None for array in arrays)
        self.cache.reads[self.cut.name, split] += 1
        rows = super().features(split)
        self.cache.alive.setdefault(self.cut.name, []).append(weakref.ref(rows))
        return rows


def counted() -> CountedCache:
    plain = small()
    return CountedCache(plain.layers, plain.targets, plain.tasks)


def swept(out: Path, *names: str, **ways: Any) -> CountedCache:
    cache = counted()
    chosen = [make(name, 0) for name in names]
    report = sweep([cache], cache.tasks, chosen, out, arrangements=arrangements(**ways))
    assert report.computed
    assert not report.failed
    return cache


def test_four_estimators_read_each_split_of_a_cut_once(tmp_path):
    cache = swept(tmp_path, "logistic", "ridge", "knn", "rankme")
    assert cache.reads == ONCE


def test_five_folds_read_each_split_of_a_cut_once(tmp_path):
    assert swept(tmp_path, "logistic", "ridge", folds=5).reads == ONCE


def test_draws_controls_and_seeds_read_each_split_of_a_cut_once(tmp_path):
    ways: dict[str, Any] = {"train": ("20%", "5/class"), "controls": ("width=3", "shuffled")}
    assert swept(tmp_path, "logistic", seeds=3, **ways).reads == ONCE


def test_cells_that_are_there_are_not_read(tmp_path):
    cache = counted()
    for _ in range(2):
        sweep([cache], [CATEGORY], [make("logistic", 0)], tmp_path)
    assert cache.reads == ONCE


def test_a_task_with_splits_of_its_own_reads_its_own_rows_once(tmp_path):
    plain = counted()
    own = np.full(len(plain.targets[LATENT.name]), -1, np.int8)
    own[:200], own[400:500], own[960:1040] = 0, 1, 2
    cache = replace(plain, splits={LATENT.name: own})
    sweep([cache], cache.tasks, [make("logistic", 0), make("ridge", 0)], tmp_path)
    assert cache.reads == {place: 2 for place in ONCE}


def test_what_is_held_may_not_be_written_into_and_is_let_go_of():
    cache = counted()
    with held(cache.view("stem")) as view:
        rows = view.features("train")
        assert view.features("train") is rows
        with pytest.raises(ValueError, match="read-only"):
            rows += 1
        del rows
        assert cache.alive["stem"][0]() is not None
    assert cache.alive["stem"][0]() is None


def test_a_layer_beyond_half_of_the_memory_is_not_held(monkeypatch):
    monkeypatch.setattr(streamed_layer, "memory", lambda: 0)
    cache = counted()
    plain = cache.view("stem")
    with held(plain) as view:
        assert view is plain


def test_large_folds_and_draws_are_not_copied_and_get_the_same_probe(tmp_path, monkeypatch):
    ways = arrangements(["20%"]), arrangements(folds=3)
    copied, streamed = (
        {
            (score.cut, score.train): score
            for way in ways
            for score in sweep(
                [counted()], [CATEGORY], [make("logistic", 0)], tmp_path / name, arrangements=way
            ).results.scores()
            if score.primary
        }
        for name in _streaming_later(monkeypatch)
    )
    assert len(copied) == 3 * 2
    for cell, score in copied.items():
        assert streamed[cell].status == "done"
        assert streamed[cell].test == pytest.approx(score.test, abs=5e-3)


def _streaming_later(monkeypatch):
    """Name two folders, between which no split of a fold can be read whole any more."""
    yield "copied"
    monkeypatch.setattr(streamed_layer, "COPIED", 0)
    monkeypatch.setattr(HeldRowsView, "features", _refuse)
    yield "streamed"


def _refuse(view: HeldRowsView, split: Split) -> np.ndarray:
    raise AssertionError(f"all of {split} were asked for at once")
