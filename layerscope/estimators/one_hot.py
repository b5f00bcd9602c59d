"""The ridge classifier: one-hot classes regressed in closed form, the largest output chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
from layerscope.estimators.layer import LoadedLayer, read_layer
from layerscope.stats.moments import BLOCK
from layerscope.stats.ridge import RidgePath, choose_penalty
from layerscope.types import LayerView, Split


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
    output = "scores"

    def fit(self, view: LayerView, targets: Sequence[Target]) -> Iterator[FittedClassifier]:
        layer = read_layer(view)
        places = torch.stack([target.places("train") for target in targets], 1)
        widths = [len(target.classes) for target in targets]
        hot = (_one_hot(block, widths) for block in torch.split(places, BLOCK))
        path, start = ridge_on_training_rows(layer, hot), 0
        for target in targets:
            own = path.only(slice(start, start + len(target.classes)))
            yield _fit_one(layer, target, own)
            start += len(target.classes)


def _fit_one(layer: LoadedLayer, target: Target, path: RidgePath) -> FittedClassifier:
    def errors(penalties: Tensor) -> Tensor:
        known = (_classify(path, float(it), layer, target, "val") for it in penalties)
        return torch.stack([it.losses(target.task.metric).mean() for it in known])

    choice = choose_penalty(errors)
    val, test = (_classify(path, choice.penalty, layer, target, split) for split in HELD_OUT)
    return FittedClassifier(layer, target, val, test, ridge_settings(path, choice))


def _one_hot(places: Tensor, widths: Sequence[int]) -> Tensor:
    """Return the classes of all tasks side by side."""
    columns = zip(places.unbind(1), widths, strict=True)
    hot = [torch.nn.functional.one_hot(place, width) for place, width in columns]
    return torch.cat(hot, 1).double()


def _classify(
    path: RidgePath, penalty: float, layer: LoadedLayer, target: Target, split: Split
) -> ClassifiedRows:
    weights = path.weights(torch.tensor([penalty], dtype=torch.float64))[0]
    blocks = (
        (path.spectrum.standardiser(block) @ weights + path.intercept)[:, None]
        for block in layer.blocks(split)
    )
    return classify_blocks(blocks, target, split, "scores")[0]
