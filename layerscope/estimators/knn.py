"""k nearest neighbours by cosine similarity: what the features group before anything is trained.

The protocol is DINO's (Caron et al. 2021, "Emerging Properties in Self-Supervised Vision
Transformers", appendix F.1 and its code): features as they are, scaled to length 1; votes weighted
by exp(similarity / 0.07); 10, 20, 100 or 200 neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layerscope.estimators import estimators
from layerscope.estimators.cell import Cell
from layerscope.estimators.classification import (
    Judged,
    Target,
    classification_scores,
    judge_all,
    read_targets,
)
from layerscope.estimators.layer import Features, read_layer
from layerscope.stats.neighbours import nearest, unit_rows, vote
from layerscope.types import Estimator, LayerView, Score, Split, Task

NEIGHBOURS = (10, 20, 100, 200)
TEMPERATURE = 0.07


@estimators.register("knn")
class Knn(Estimator):
    """Exact cosine k nearest neighbours as in DINO; k is chosen on the validation split.

    Features are not standardised, as in DINO: those of large scale or offset dominate. Of k = 10,
    20, 100 and 200, none above the number of training rows, the one is chosen that the task's
    metric prefers on the validation rows, ties by their negative log-likelihood. The share of the
    votes is taken for the probability of a class; a class without a vote has the least that is
    counted with.

    Args:
        seed: Kept in the table; nothing is drawn.
    """

    name = "knn"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def handles(self, task: Task) -> bool:
        return task.kind == "classes"

    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield top-1, top-5, mean-per-class, nll and ece for each task.

        Raises:
            EstimatorError: Features or targets on which no classifier is defined.
        """
        targets = read_targets(view, tasks, self.name)
        layer = read_layer(view)
        features = {split: unit_rows(rows) for split, rows in layer.features.items()}
        ks = sorted({min(k, layer.count("train")) for k in NEIGHBOURS})
        for target in targets:
            val = _judged(features, target, "val", ks)
            best = min(range(len(ks)), key=lambda i: val[i].rank(target.task.metric))
            (test,) = _judged(features, target, "test", ks[best : best + 1])
            settings = {"k": ks[best], "ks": ks, "temperature": TEMPERATURE}
            cell = Cell(view, layer, target.task, self.name, self._seed, settings)
            yield from classification_scores(cell, val[best], test)


def _judged(features: Features, target: Target, split: Split, ks: Sequence[int]) -> list[Judged]:
    """Return what each number of neighbours makes of a split's rows."""
    labels, classes = target.places("train"), len(target.classes)
    blocks = (
        vote(similar, labels[places], classes, ks, TEMPERATURE)
        for similar, places in nearest(features[split], features["train"], max(ks))
    )
    return judge_all(blocks, target, split)
