"""The ridge classifier: one-hot classes regressed in closed form, the largest output chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from layerscope.estimators import estimators
from layerscope.estimators.classification import (
    HELD_OUT,
    ClassifiedRows,
    Classifier,
    FittedClassifier,
    Target,
    classify_blocks,
)
from layerscope.estimators.latents import ridge_on_training_rows, ridge_settings
from layerscope.estimators.layer import LayerRows, LoadedLayer, read_layer
from layerscope.estimators.refits import as_replicates, ridge_refits, training_blocks
from layerscope.stats.moments import BLOCK
from layerscope.stats.ridge import RidgePath, choose_penalty
from layerscope.stats.spectrum import Standardiser
from layerscope.types import LayerView, Replicates, Split


@estimators.register("ridge-classifier")
class RidgeClassifier(Classifier):
    """Least squares on one-hot classes with an L2 penalty, in closed form: a fast screening.

    One eigendecomposition serves all tasks and every λ. λ is chosen by the task's metric on the
    validation rows, of equal ones the strongest. The outputs rank the classes and are no
    probabilities, so that there is neither nll nor ece.

    Args:
        seed: Kept in the table; the fit is deterministic.
    """

    name = "ridge-classifier"
    refits = "own"
    output = "scores"

    def fit(self, view: LayerView, targets: Sequence[Target]) -> Iterator[FittedClassifier]:
        layer = read_layer(view)
        places = torch.stack([target.places("train") for target in targets], 1)
        widths = [len(target.classes) for target in targets]
        hot = (_one_hot(block, widths) for block in torch.split(places, BLOCK))
        path, start = ridge_on_training_rows(layer, hot), 0
        for target in targets:
            own = path.only(slice(start, start + len(target.classes)))
            fitted = _fit_one(layer, target, own)
            yield replace(fitted, replicates=_refitted(view, fitted, own))
            start += len(target.classes)


def _refitted(view: LayerView, fitted: FittedClassifier, path: RidgePath) -> Replicates | None:
    """Return the losses of fits without some of the training rows, at the λ that was chosen."""
    layer, target = fitted.layer, fitted.target
    blocks = training_blocks(view, target.task)
    if blocks is None:
        return None
    hot = _one_hot(target.places("train")[:, None], [len(target.classes)])
    penalties = torch.full((hot.shape[1],), fitted.settings["lambda"], dtype=torch.float64)
    refits = ridge_refits(layer, blocks, path, hot, penalties)
    rule = path.spectrum.standardiser
    found = (_classify(rule, *refit, layer, target, "test") for refit in refits)
    return as_replicates(it.losses(target.task.metric) for it in found)


def _fit_one(layer: LoadedLayer, target: Target, path: RidgePath) -> FittedClassifier:
    def classified(penalty: float, split: Split) -> ClassifiedRows:
        weights = path.weights(torch.tensor([penalty], dtype=torch.float64))[0]
        rule = path.spectrum.standardiser
        return _classify(rule, weights, path.intercept, layer, target, split)

    def errors(penalties: Tensor) -> Tensor:
        known = (classified(float(it), "val") for it in penalties)
        return torch.stack([it.losses(target.task.metric).mean() for it in known])

    choice = choose_penalty(errors)
    val, test = (classified(choice.penalty, split) for split in HELD_OUT)
    return FittedClassifier(layer, target, val, test, ridge_settings(path, choice))


def _one_hot(places: Tensor, widths: Sequence[int]) -> Tensor:
    """Return the classes of all tasks side by side."""
    columns = zip(places.unbind(1), widths, strict=True)
    hot = [torch.nn.functional.one_hot(place, width) for place, width in columns]
    return torch.cat(hot, 1).double()


def _classify(
    rule: Standardiser,
    weights: Tensor,
    intercept: Tensor,
    layer: LayerRows,
    target: Target,
    split: Split,
) -> ClassifiedRows:
    blocks = ((rule(block) @ weights + intercept)[:, None] for block in layer.blocks(split))
    return classify_blocks(blocks, target, split)[0].ranked_only()
