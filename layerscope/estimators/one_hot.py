"""The ridge classifier: one-hot classes regressed in closed form, the largest output chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from layerscope.estimators import estimators
from layerscope.estimators.cell import Cell
from layerscope.estimators.classification import (
    Judged,
    Target,
    classification_scores,
    judge_all,
    read_targets,
)
from layerscope.estimators.layer import LoadedLayer, read_layer
from layerscope.stats.moments import BLOCK, RunningCrossMoments
from layerscope.stats.ridge import RidgePath, choose_penalty, ridge_path
from layerscope.types import Estimator, LayerView, Score, Split, Task


@estimators.register("ridge-classifier")
class RidgeClassifier(Estimator):
    """Least squares on one-hot classes with an L2 penalty, in closed form: a fast screening.

    One eigendecomposition serves all tasks and every λ. λ is chosen by the task's metric on the
    validation rows, of equal ones the strongest. The outputs rank the classes and are no
    probabilities, so that there is neither nll nor ece.

    Args:
        seed: Kept in the table; the fit is deterministic.
    """

    name = "ridge-classifier"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def handles(self, task: Task) -> bool:
        return task.kind == "classes"

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield top-1, top-5 and mean-per-class for each task.

        Raises:
            EstimatorError: Features or targets on which no classifier is defined.
        """
        targets = read_targets(view, tasks, self.name, "scores")
        layer = read_layer(view)
        path, start = _path(layer, targets), 0
        for target in targets:
            own = path.only(slice(start, start + len(target.classes)))
            yield from self._scores(view, layer, target, own)
            start += len(target.classes)

    def _scores(
        self, view: LayerView, layer: LoadedLayer, target: Target, path: RidgePath
    ) -> Iterator[Score]:
        def errors(penalties: Tensor) -> Tensor:
            found = (_judged(path, float(it), layer, target, "val") for it in penalties)
            return torch.stack([it.losses(target.task.metric).mean() for it in found])

        choice = choose_penalty(errors)
        settings = {
            "lambda": choice.penalty,
            "lambda_low": choice.low,
            "lambda_high": choice.high,
            "edge": choice.edge,
            "rank": path.spectrum.rank,
        }
        cell = Cell(view, layer, target.task, self.name, self._seed, settings)
        splits: tuple[Split, ...] = ("val", "test")
        val, test = (_judged(path, choice.penalty, layer, target, split) for split in splits)
        yield from classification_scores(cell, val, test)


def _path(layer: LoadedLayer, targets: Sequence[Target]) -> RidgePath:
    """Solve for the classes of all tasks side by side, in float64."""
    places = torch.stack([target.places("train") for target in targets], 1)
    widths = [len(target.classes) for target in targets]
    running = RunningCrossMoments(len(layer.rarely), sum(widths))
    for block, own in zip(layer.blocks("train"), torch.split(places, BLOCK), strict=True):
        hot = [
            torch.nn.functional.one_hot(place, width)
            for place, width in zip(own.unbind(1), widths, strict=True)
        ]
        running.update(block.double(), torch.cat(hot, 1).double())
    return ridge_path(running.compute())


def _judged(
    path: RidgePath, penalty: float, layer: LoadedLayer, target: Target, split: Split
) -> Judged:
    weights = path.weights(torch.tensor([penalty], dtype=torch.float64))[0]
    blocks = (
        (path.spectrum.standardiser(block) @ weights + path.intercept)[:, None]
        for block in layer.blocks(split)
    )
    return judge_all(blocks, target, split)[0].ranked_only()
