"""Cross-validation: every training and validation row is validated on once, groups kept together.

For small data, on which a single validation split says little about the cut. Each fold's probe is
chosen on its own held-out rows and judged on all test rows, which no fold trains on; a row's test
loss is the mean over the folds' probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from layerscope.errors import SettingsError
from layerscope.probing.arranged_view import Rows
from layerscope.stats.training_noise import jackknife
from layerscope.types import LayerView, Losses, Score, Task


def folded(view: LayerView, task: Task, count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Return the training and validation rows of all folds; every row is validated on once.

    They are places in the training rows followed by the validation rows.

    Args:
        view: A cut, whose training and validation rows are divided anew.
        task: Of classes: every fold has about the same share of each.
        count: Number of folds.
        seed: Of the division.

    Raises:
        SettingsError: There are fewer groups than folds.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    groups = np.concatenate((view.groups("train"), view.groups("val")))
    known = len(np.unique(groups))
    if known < count:
        raise SettingsError(
            f"{count} folds cannot be made of {known} independent groups of rows.",
            hint="Ask for fewer folds.",
        )
    labels = None
    if task.kind == "classes":
        labels = np.concatenate((view.target(task.name, "train"), view.target(task.name, "val")))
    kind = GroupKFold if labels is None else StratifiedGroupKFold
    return list(kind(count, shuffle=True, random_state=seed).split(groups, labels, groups))


def joined(parts: Sequence[Sequence[Score]], places: Sequence[Rows]) -> list[Score]:
    """Return the scores of a task as one, from those of its folds.

    Args:
        parts: The scores of each fold, by metric.
        places: The rows that each fold validated on.
    """
    by_metric = [{score.metric: score for score in part} for part in parts]
    shared = [metric for metric in by_metric[0] if all(metric in part for part in by_metric)]
    return [_joined([part[metric] for part in by_metric], places) for metric in shared]


def _joined(scores: Sequence[Score], places: Sequence[Rows]) -> Score:
    sizes = np.array([len(rows) for rows in places])
    return replace(
        scores[0],
        val=float(np.average([score.val for score in scores], weights=sizes)),
        test=fmean(score.test for score in scores),
        # Of a mean it is at most the mean.
        stderr=fmean(score.stderr for score in scores),
        n_train=round(fmean(score.n_train for score in scores)),
        n_val=int(sizes.sum()),
        settings={"folds": [dict(score.settings) for score in scores]},
        note=" ".join(dict.fromkeys(score.note for score in scores if score.note)),
        losses=_joined_losses([score.losses for score in scores], places),
    )


def _joined_losses(losses: Sequence[Losses | None], places: Sequence[Rows]) -> Losses | None:
    known = [it for it in losses if it is not None]
    if len(known) < len(losses):
        return None
    val = np.empty(sum(len(rows) for rows in places))
    for rows, it in zip(places, known, strict=True):
        val[rows] = it.val
    test = np.stack([it.test for it in known])
    groups = max(it.train_groups for it in known)
    # Each fold's probe lacks one fold: they are a jackknife as they are.
    return Losses(val, test.mean(0), None, (jackknife(test, "folds"),), groups)
