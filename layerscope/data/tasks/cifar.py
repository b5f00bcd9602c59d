"""CIFAR-10 and CIFAR-100: small images of 10 or 100 kinds of things, 32×32 pixels each.

The folder holds ``cifar-10-batches-py/`` with ``data_batch_1`` to ``data_batch_5``, ``test_batch``
and ``batches.meta``; or ``cifar-100-python/`` with ``train``, ``test`` and ``meta``. They are read
by torchvision's own ``CIFAR10`` and ``CIFAR100``, which compare every file's MD5 with the published
one before they open it, so that no pickle is read but the official ones. All images are kept in
memory (184 MB) and called by their places: ``train/00017``, ``test/00003``. The labels of CIFAR-100
are its 100 fine ones.

Images are resized whole: a network for ImageNet gets all 32 pixels enlarged to the side of its
crop, and one that was trained on CIFAR gets them as they are.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from layerscope.data.assembly import assemble
from layerscope.data.class_task import class_task
from layerscope.data.images import ArrayImages
from layerscope.data.listing import require_folder
from layerscope.data.sources import sources, tasks
from layerscope.data.splits import carve_val
from layerscope.errors import SourceError
from layerscope.types import Source, Task

VAL_IMAGES = 5000
"""The number of training images that validate, in both sets; as many of each class."""


def _task(title: str, class_count: int) -> Task:
    return class_task(
        title.lower().replace("-", ""),
        title,
        f"the official test images test; {VAL_IMAGES // class_count} of each class of train "
        "validate",
        class_count=class_count,
        licence="none stated by its authors",
        citation="Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images",
    )


CIFAR10_TASK = _task("CIFAR-10", 10)
CIFAR100_TASK = _task("CIFAR-100", 100)
for _each in (CIFAR10_TASK, CIFAR100_TASK):
    tasks.add(_each.name, _each)


@sources.register(CIFAR10_TASK.source)
def open_cifar10(root: Path) -> Source:
    """Return the record of CIFAR-10.

    Rows come in the order of the files, the training images first.

    Raises:
        SourceError: A file is missing, or is not the official one.
    """
    return _open(root, "CIFAR10", CIFAR10_TASK)


@sources.register(CIFAR100_TASK.source)
def open_cifar100(root: Path) -> Source:
    """Return the record of CIFAR-100 with its fine labels.

    Rows come in the order of the files, the training images first.

    Raises:
        SourceError: A file is missing, or is not the official one.
    """
    return _open(root, "CIFAR100", CIFAR100_TASK)


def _open(root: Path, kind: str, task: Task) -> Source:
    # Here, because it takes seconds, and every task is imported to be named.
    from torchvision import datasets

    reader = getattr(datasets, kind)
    train, test = (_read(root, reader, task, train=part) for part in (True, False))
    labels = np.array([*train.targets, *test.targets], np.int64)
    counts = {"train": len(train.targets), "test": len(test.targets)}
    ids = [f"{part}/{place:05d}" for part, count in counts.items() for place in range(count)]
    of_train = np.arange(len(ids)) < counts["train"]
    splits = carve_val(of_train, ids, labels, per_class=VAL_IMAGES // task.class_count)
    title = f"{task.title} in {str(root / reader.base_folder)!r}"
    pixels = np.ascontiguousarray(np.concatenate([train.data, test.data]))
    return assemble(
        task.source,
        root,
        ids,
        splits,
        {replace(task, classes=tuple(train.classes)): labels},
        images=ArrayImages(pixels, title),
        framing="whole",
    )


def _read(root: Path, reader: Any, task: Task, *, train: bool) -> Any:
    hint = f"It holds the files of {task.title} for Python, as torchvision downloads them."
    require_folder(root, reader.base_folder, hint=hint)
    try:
        with warnings.catch_warnings():
            # Python 2 pickled the files; NumPy 2.4.0 to 2.4.4 warn of how it spelt a dtype.
            warnings.filterwarnings(
                "ignore", r"dtype\(\): align", np.exceptions.VisibleDeprecationWarning
            )
            return reader(root, train=train)
    except RuntimeError:
        raise SourceError(
            f"{str(root / reader.base_folder)!r} is not {task.title}: a file is missing, or its "
            "MD5 is not the published one.",
            hint=f"Download it again. {hint}",
        ) from None
