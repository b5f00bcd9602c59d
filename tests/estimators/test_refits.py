from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from layerscope.estimators import refits
from layerscope.estimators.latents import Ridge
from layerscope.estimators.logistic import Logistic
from layerscope.estimators.one_hot import RidgeClassifier
from layerscope.estimators.refits import BLOCKS, dealt, training_blocks
from layerscope.testing.layers import HeldLayer
from layerscope.types import Task

KIND = Task("kind", "memory", "classes", "top-1", "maximise")
SIZE = Task("size", "memory", "latents", "mse", "minimise", encoding="raw")


def layer(each: int = 1) -> HeldLayer:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, 400 // each).repeat(each)
    rows = rng.standard_normal((400, 10)) + np.eye(4, 10)[kind] * 1.5
    size = rows[:, :3].sum(1) + rng.standard_normal(400)
    return HeldLayer.of(rows, each=each, kind=kind, size=size)


def test_groups_stay_together_and_blocks_are_of_like_size():
    groups = np.repeat(np.arange(40), np.random.default_rng(0).integers(1, 9, 40)).astype(str)
    blocks = dealt(groups, None)
    assert len(set(zip(groups.tolist(), blocks.tolist(), strict=True))) == 40
    assert set(blocks.tolist()) == set(range(BLOCKS))
    sizes = Counter(blocks.tolist()).values()
    assert max(sizes) - min(sizes) <= 8


def test_every_block_lacks_about_the_same_of_each_class():
    labels = np.repeat(np.arange(5), 16)
    blocks = dealt(np.arange(80).astype(str), labels)
    assert set(Counter(zip(labels.tolist(), blocks.tolist(), strict=True)).values()) == {2}


def test_blocks_depend_on_groups_and_classes_alone():
    first, other = layer(), layer().with_rows(np.arange(400), 3.0)
    np.testing.assert_array_equal(training_blocks(first, KIND), training_blocks(other, KIND))


def test_few_groups_are_blocks_of_their_own_and_one_is_none():
    a, b, again, c = dealt(np.array(["a", "b", "b", "c"]), None).tolist()
    assert b == again
    assert {a, b, c} == {0, 1, 2}
    assert dealt(np.array(["a", "a"]), None) is None


def primary(estimator, view, task):
    return next(it for it in estimator.score(view, [task]) if it.primary)


@pytest.mark.parametrize("each", [1, 5])
@pytest.mark.parametrize(
    ("estimator", "task"), [(Logistic(), KIND), (RidgeClassifier(), KIND), (Ridge(), SIZE)]
)
def test_refits_are_fits_of_the_rows_that_are_left(estimator, task, each, monkeypatch):
    """The same λ on the same standardised features, fitted from scratch to those rows."""
    monkeypatch.setattr(refits, "HALF", 1.0)
    whole = layer(each)
    scored = primary(estimator, whole, task)
    made, chosen = scored.losses.replicates
    blocks = training_blocks(whole, None if task.kind == "latents" else task)
    assert (made.kind, chosen.kind) == ("refits", "choices")
    assert made.losses.shape == (BLOCKS, len(whole.groups("test")))
    train = whole.places("train")
    z = standardised(whole)
    for number in (0, BLOCKS - 1):
        kept = train[blocks != number]
        expected = refitted(estimator, z, whole.targets[task.name], kept, scored.settings["lambda"])
        test = whole.places("test")
        if task.kind == "latents":
            losses = (expected[test].ravel() - whole.targets["size"][test]) ** 2
            np.testing.assert_allclose(made.losses[number], losses, rtol=1e-4, atol=1e-5)
        else:
            wrong = expected[test].argmax(1) != whole.targets["kind"][test]
            assert (made.losses[number] != wrong).mean() <= 0.02  # a row may be between classes


def standardised(view: HeldLayer) -> np.ndarray:
    train = view.features("train").astype(np.float64)
    return (view.rows - train.mean(0)) / train.std(0)


def refitted(estimator, z, target, kept, penalty) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.linear_model import Ridge as ScikitRidge

    if isinstance(estimator, Logistic):
        model = LogisticRegression(C=1 / (penalty * len(kept)), tol=1e-8, max_iter=5000)
        return model.fit(z[kept], target[kept]).decision_function(z)
    hot = np.eye(4)[target] if isinstance(estimator, RidgeClassifier) else target[:, None]
    return ScikitRidge(alpha=penalty * len(kept)).fit(z[kept], hot[kept]).predict(z)


def test_training_rows_of_one_group_have_no_refits():
    whole = layer()
    alone = HeldLayer(
        whole.rows,
        whole.targets,
        whole.splits,
        np.where(whole.splits == "train", 0, np.arange(400)),
    )
    assert primary(Ridge(), alone, SIZE).losses.replicates == ()


def test_losses_know_how_many_groups_trained():
    assert primary(Ridge(), layer(5), SIZE).losses.train_groups == 48


def test_half_of_a_block_counts_by_its_own_factor():
    """240 groups of rows for 10 directions: half of a block's weight is taken away."""
    whole = layer()
    made, _ = primary(Ridge(), whole, SIZE).losses.replicates
    assert made.factor == pytest.approx(7.5**2 / 0.5**2 / (8 * 7))
    wide = HeldLayer.of(
        np.random.default_rng(1).standard_normal((400, 100)), size=whole.targets["size"]
    )
    made, _ = primary(Ridge(), wide, SIZE).losses.replicates
    assert made.factor == pytest.approx(7 / 8)
