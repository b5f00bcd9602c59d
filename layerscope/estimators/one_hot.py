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
from layerscope.estimators.refits import (
    Refits,
    ridge_refits,
    training_blocks,
    validation_weights,
)
from layerscope.stats.moments import BLOCK
from layerscope.stats.ridge import RidgePath, choose_penalty, strongest_of_least
from layerscope.stats.spectrum import Standardiser
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
            yield _fit_one(view, layer, target, own)
            start += len(target.classes)


def _fit_one(
    view: LayerView, layer: LoadedLayer, target: Target, path: RidgePath
) -> FittedClassifier:
    rule, metric, tried = path.spectrum.standardiser, target.task.metric, dict[float, Tensor]()

    def classified(penalty: float, split: Split) -> ClassifiedRows:
        weights = path.weights(torch.tensor([penalty], dtype=torch.float64))[0]
        return _classify(rule, weights, path.intercept, layer, target, split)

    def errors(penalties: Tensor) -> Tensor:
        for penalty in set(penalties.tolist()) - set(tried):
            tried[penalty] = classified(penalty, "val").losses(metric)
        return torch.stack([tried[it].mean() for it in penalties.tolist()])

    choice = choose_penalty(errors)
    val, test = (classified(choice.penalty, split) for split in HELD_OUT)
    fitted = FittedClassifier(layer, target, val, test, ridge_settings(path, choice))
    blocks = training_blocks(view, target.task)
    if blocks is None:
        return fitted
    hot = _one_hot(target.places("train")[:, None], [len(target.classes)])
    penalties = torch.full((hot.shape[1],), choice.penalty, dtype=torch.float64)
    without = [
        _classify(rule, *refit, layer, target, "test").losses(metric)
        for refit in ridge_refits(layer, blocks, path, hot, penalties)
    ]
    known = dict(sorted(tried.items()))
    means = validation_weights(view) @ torch.stack(list(known.values()), 1)
    others = torch.tensor(list(known))[strongest_of_least(means, 1)].tolist()
    of_test = {it: classified(it, "test").losses(metric) for it in set(others)}
    refits = Refits(without, [of_test[it] for it in others])
    return replace(fitted, replicates=refits.replicates())


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
    return classify_blocks(blocks, target, split, "scores")[0]
