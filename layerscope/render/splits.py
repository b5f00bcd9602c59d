"""Which objects are for training, validation and test: whole objects, alike over categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from layerscope.render.catalogue import ObjectInstance
from layerscope.types import SPLITS, Split

SHARES: dict[Split, float] = {"train": 0.70, "val": 0.15, "test": 0.15}


def split_objects(instances: Sequence[ObjectInstance], seed: int) -> dict[str, Split]:
    """Return the split of each object by its name.

    The objects of one category after another, shuffled, go each to the split that lacks most. So
    each category and the whole have the wanted shares to within one object.
    """
    counts: Counter[Split] = Counter()
    result: dict[str, Split] = {}
    for done, instance in enumerate(_shuffle(instances, seed), start=1):
        lacking = {split: SHARES[split] * done - counts[split] for split in SPLITS}
        chosen = max(SPLITS, key=lambda split: round(lacking[split], 9))
        result[instance.name] = chosen
        counts[chosen] += 1
    return _fill_empty(result)


def _shuffle(instances: Sequence[ObjectInstance], seed: int) -> list[ObjectInstance]:
    order = np.random.default_rng([seed, 3]).permutation(len(instances))
    return sorted((instances[index] for index in order), key=lambda instance: instance.category)


def _fill_empty(result: dict[str, Split]) -> dict[str, Split]:
    """Give each split at least one object, if there are three, from the fullest split."""
    for split in SPLITS:
        counts = Counter(result.values())
        if len(result) >= len(SPLITS) and counts[split] == 0:
            fullest = max(SPLITS, key=lambda name: counts[name])
            last = [name for name, which in result.items() if which == fullest][-1]
            result[last] = split
    return result
