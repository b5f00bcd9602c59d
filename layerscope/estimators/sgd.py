"""Published protocols of linear evaluation by minibatch descent, on cached features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch

from layerscope.errors import EstimatorError
from layerscope.estimators import estimators
from layerscope.estimators.classification import (
    ClassifiedRows,
    Classifier,
    FittedClassifier,
    Target,
    classify_blocks,
)
from layerscope.estimators.layer import Features, LoadedLayer, read_layer, standardised
from layerscope.estimators.presets import PREFIX, PRESETS, Preset
from layerscope.stats.minibatch import Heads, MinibatchPlan, train_heads
from layerscope.stats.rows import BLOCK
from layerscope.types import Estimator, LayerView, Split

CAVEAT = "The published protocol augments and crops at random, which cached features cannot repeat."


class Sgd(Classifier):
    """A linear classifier trained as a published protocol does, on cached features.

    All learning rates of the protocol are trained side by side on the same minibatches; of several
    the one is taken that the task's metric prefers on the validation rows after the last epoch. No
    epoch is chosen. Where there are fewer training rows than the protocol's batch has, all of them
    are a batch, and rates that grow with the batch are those of the smaller one. What differs from
    what was published: the features were extracted once, so that there is neither augmentation nor
    a random crop.

    Args:
        preset: The name behind ``sgd:``.
        seed: Of the first weights and of the order of the rows.
    """

    refits = "none"

    def __init__(self, preset: str, seed: int = 0) -> None:
        super().__init__(seed)
        self.name, self._preset = PREFIX + preset, PRESETS[preset]

    def with_seed(self, seed: int) -> Self:
        """Return the same with another seed."""
        return type(self)(self.name.removeprefix(PREFIX), seed)

    def fit(self, view: LayerView, targets: Sequence[Target]) -> Iterator[FittedClassifier]:
        layer = read_layer(view)
        plain = self._preset.features == "raw"
        features = layer.features if plain else standardised(layer)
        for target in targets:
            yield self._fit_one(view, layer, features, target)

    def _fit_one(
        self, view: LayerView, layer: LoadedLayer, features: Features, target: Target
    ) -> FittedClassifier:
        plan = _plan(self._preset, layer.count("train"))
        rates = self._preset.rates_for(plan.batch)
        labels = target.places("train")
        heads = train_heads(features["train"], labels, len(target.classes), rates, plan, self._seed)
        val = _classify(heads, features, target, "val")
        sound = [i for i, it in enumerate(val) if it.sound]
        if not sound:
            raise EstimatorError(
                f"{self.name} diverges on {view.cut.name!r} at every learning rate, from "
                f"{min(rates):g} to {max(rates):g}.",
                hint="Its features are larger than the protocol's own; use logistic there.",
            )
        best = min(sound, key=lambda i: val[i].rank(target.task.metric))
        (test,) = _classify(heads.only(best), features, target, "test")
        settings = self._settings(plan, rates, best, sound)
        note = _note(self._preset, layer)
        return FittedClassifier(layer, target, val[best], test, settings, note)

    def _settings(
        self, plan: MinibatchPlan, rates: Sequence[float], best: int, sound: Sequence[int]
    ) -> dict[str, Any]:
        preset = self._preset
        return {
            "rate": rates[best],
            "rates": list(rates),
            "diverged": [rate for i, rate in enumerate(rates) if i not in sound],
            "optimiser": preset.optimiser.kind,
            "decay": preset.optimiser.decay,
            "steps": plan.steps,
            "batch": plan.batch,
            "features": preset.features,
            "citation": preset.citation,
        }


def _plan(preset: Preset, rows: int) -> MinibatchPlan:
    batch = min(preset.batch, rows)
    in_epoch = math.ceil(rows / batch) if preset.remainder == "kept" else rows // batch
    steps = preset.steps or preset.epochs * in_epoch
    return MinibatchPlan(
        optimiser=preset.optimiser,
        schedule=preset.schedule,
        steps=steps,
        per_epoch=steps / preset.epochs,
        batch=batch,
        remainder=preset.remainder,
    )


def _note(preset: Preset, layer: LoadedLayer) -> str:
    rows, power = layer.count("train"), layer.preparation.exponent
    parts = [CAVEAT]
    if rows < preset.batch:
        parts.append(f"Its batch has {preset.batch} rows, of which there are {rows}.")
    if power and preset.features == "raw":
        parts.append(
            f"The layer's features are of size 2^{power}, which is divided out, because the "
            "protocol's rates are for features of size 1."
        )
    return " ".join(parts)


def _classify(
    heads: Heads, features: Features, target: Target, split: Split
) -> list[ClassifiedRows]:
    return classify_blocks(map(heads.logits, torch.split(features[split], BLOCK)), target, split)


def _maker(name: str, preset: Preset) -> Callable[[int], Estimator]:
    def make(seed: int = 0) -> Estimator:
        return Sgd(name, seed)

    make.__doc__ = f"Linear evaluation of cached features: {preset.title}."
    return make


for _name, _preset in PRESETS.items():
    estimators.add(PREFIX + _name, _maker(_name, _preset))
