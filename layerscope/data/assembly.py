"""A source put together from what a folder and its annotations say, and checked as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layerscope.data.listing import MISSING, file_sizes, require_text
from layerscope.data.manifest import annotation_manifest, image_manifest
from layerscope.errors import SourceError
from layerscope.types import SPLITS, Framing, Images, Source, Task

_HINT = "Compare the folder with the layout in docs/tasks.md, or download the data set again."


def assemble(
    name: str,
    root: Path,
    ids: Sequence[str],
    splits: npt.NDArray[np.str_],
    targets: Mapping[Task, npt.NDArray[Any]],
    *,
    groups: npt.NDArray[np.str_] | None = None,
    sizes: Sequence[int] | npt.NDArray[np.int64] | None = None,
    images: Images | None = None,
    framing: Framing = "checkpoint",
    task_splits: Mapping[str, npt.NDArray[np.int8]] | None = None,
    notes: Sequence[str] = (),
    test_only: bool = False,
) -> Source:
    """Return the record of a source, after what no probe could notice has been ruled out.

    Args:
        name: The source's name.
        root: The source's folder.
        ids: (n,) one name a row; paths relative to the folder unless ``images`` is given.
        splits: (n,) ``train``, ``val`` or ``test``.
        targets: By task: (n,) classes, (n, k) labels or latents.
        groups: (n,) what rows share that are not independent; every row is its own by default.
        sizes: (n,) bytes of the image files, where they are known; looked up by default.
        images: What reads the images, where they are no files of that name.
        framing: What the source lets happen to its images.
        task_splits: By task name, for tasks that divide the rows otherwise.
        notes: What whoever uses the source should know.
        test_only: Whether nothing is ever fitted on the source, so that one split is enough.

    Raises:
        SourceError: There are no rows, a name twice, an empty split, a group in two splits, or a
            label out of range.
    """
    _require_names(root, ids)
    if groups is not None:
        _require_whole_groups(root, splits, groups)
    own = np.arange(len(ids)).astype(np.str_) if groups is None else groups
    if sizes is None:
        sizes = file_sizes(root, ids) if images is None else np.zeros(len(ids), np.int64)
    tasks = tuple(targets)
    by_name = {task.name: target for task, target in targets.items()}
    parts = dict(task_splits or {})
    if any(task.kind != "none" for task in tasks) and not test_only:
        _require_splits(root, splits)
    for task in tasks:
        _require_range(root, task, by_name[task.name], parts.get(task.name), ids)
    return Source(
        name=name,
        ids=tuple(ids),
        splits=splits,
        groups=own,
        tasks=tasks,
        targets=by_name,
        manifest=image_manifest(ids, sizes),
        annotations=annotation_manifest(splits, own, by_name, parts),
        root=root,
        images=images,
        framing=framing,
        task_splits=parts,
        missing={} if images is not None else _missing(np.asarray(sizes)),
        notes=tuple(notes),
    )


def _missing(sizes: npt.NDArray[np.int64]) -> dict[int, str]:
    gone = {int(row): "the file is not there" for row in np.flatnonzero(sizes == MISSING)}
    return gone | {int(row): "the file is empty" for row in np.flatnonzero(sizes == 0)}


def _require_names(root: Path, ids: Sequence[str]) -> None:
    if not ids:
        raise SourceError(f"{str(root)!r} holds no image.", hint=_HINT)
    for name in ids:
        if not name.isascii():
            require_text(name, root)
    if len(set(ids)) < len(ids):
        name, count = Counter(ids).most_common(1)[0]
        raise SourceError(
            f"{str(root)!r} names the image {name!r} {count} times.",
            hint="Each image is one row; two labels for one cannot both be right.",
        )


def _require_splits(root: Path, splits: npt.NDArray[np.str_]) -> None:
    for split in SPLITS:
        if not (splits == split).any():
            raise SourceError(
                f"The {split} split of {str(root)!r} is empty: {len(splits)} images in all.",
                hint="A probe is fitted on train, chosen on val and judged on test; " + _HINT,
            )


def require_task_splits(root: Path, task_splits: Mapping[str, npt.NDArray[np.int8]]) -> None:
    """Refuse tasks with splits of their own, (n,) places in ``SPLITS``, of which one is empty.

    Raises:
        SourceError: A split is empty.
    """
    for task, places in task_splits.items():
        for place, split in enumerate(SPLITS):
            if not (places == place).any():
                raise SourceError(
                    f"The {split} split of {task} is empty: {int((places >= 0).sum())} of "
                    f"{len(places)} rows of {str(root)!r} have a value.",
                    hint="A probe is fitted on train, chosen on val and judged on test.",
                )


def _require_whole_groups(
    root: Path, splits: npt.NDArray[np.str_], groups: npt.NDArray[np.str_]
) -> None:
    names, first, member = np.unique(groups, return_index=True, return_inverse=True)
    elsewhere = splits != splits[first][member.ravel()]
    if elsewhere.any():
        group = str(names[member.ravel()[elsewhere]][0])
        where = ", ".join(np.unique(splits[groups == group]))
        raise SourceError(
            f"{str(root)!r} has images of {group!r} in several splits: {where}.",
            hint="They are not independent: a probe would be judged on what it was fitted on.",
        )


def _require_range(
    root: Path,
    task: Task,
    target: npt.NDArray[Any],
    split: npt.NDArray[np.int8] | None,
    ids: Sequence[str],
) -> None:
    if len(target) != len(ids):
        raise SourceError(
            f"{task.name} has {len(target)} targets for {len(ids)} images of {str(root)!r}.",
            hint="Give one target for each image.",
        )
    used = np.ones(len(ids), np.bool_) if split is None else split >= 0
    if task.kind == "classes":
        wrong = used & ((target < 0) | (target >= len(task.classes)))
        what = f"a label out of range: {len(task.classes)} classes are known"
    elif task.kind == "multilabel":
        wrong = used & ~np.isin(target, (0, 1)).all(axis=1)
        what = "labels other than 0 and 1"
    else:
        wrong = used & ~np.isfinite(target).reshape(len(ids), -1).all(axis=1)
        what = "a value that is not finite"
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise SourceError(
            f"{ids[row]!r} has {what}; its {task.name} is {target[row].tolist()}.",
            hint=f"Look at the annotations of {str(root)!r}.",
        )
