"""k nearest neighbours by cosine similarity: what the features group before anything is trained.

The protocol is DINO's (Caron et al. 2021, "Emerging Properties in Self-Supervised Vision
Transformers", appendix F.1 and its code): features as they are, scaled to length 1; votes weighted
by exp(similarity / 0.07); 10, 20, 100 or 200 neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layerscope.estimators import estimators
from layerscope.estimators.classification import (
    ClassifiedRows,
    Classifier,
    FittedClassifier,
    Target,
    classify_blocks,
)
from layerscope.estimators.layer import Features, read_layer
from layerscope.stats.neighbours import nearest, unit_rows, vote
from layerscope.types import LayerView, Split

NEIGHBOURS = (10, 20, 100, 200)
TEMPERATURE = 0.07


@estimators.register("knn")
class Knn(Classifier):
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

    def fit(self, view: LayerView, targets: Sequence[Target]) -> Iterator[FittedClassifier]:
        layer = read_layer(view)
        features = {split: unit_rows(rows) for split, rows in layer.features.items()}
        ks = sorted({min(k, layer.count("train")) for k in NEIGHBOURS})
        for target in targets:
            val = _classify(features, target, "val", ks)
            best = min(range(len(ks)), key=lambda i: val[i].rank(target.task.metric))
            (test,) = _classify(features, target, "test", ks[best : best + 1])
            settings = {"k": ks[best], "ks": ks, "temperature": TEMPERATURE}
            yield FittedClassifier(layer, target, val[best], test, settings)


def _classify(
    features: Features, target: Target, split: Split, ks: Sequence[int]
) -> list[ClassifiedRows]:
    """Return what each number of neighbours makes of a split's rows."""
    labels, classes = target.places("train"), len(target.classes)
    blocks = (
        vote(similar, labels[places], classes, ks, TEMPERATURE)
        for similar, places in nearest(features[split], features["train"], max(ks))
    )
    return classify_blocks(blocks, target, split)
