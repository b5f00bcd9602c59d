"""The task that most data sets ask: which of its classes an image shows."""

from __future__ import annotations

from layerscope.types import Task


def class_task(
    name: str,
    title: str,
    split: str,
    *,
    source: str | None = None,
    classes: tuple[str, ...] = (),
    class_count: int = 0,
    licence: str = "",
    citation: str = "",
) -> Task:
    """Return a task of one class an image, of which the best cut has the highest top-1 accuracy.

    Args:
        name: Of the task.
        title: For figures.
        split: Where train, val and test come from, in one sentence.
        source: The image source; by default it is called like the task.
        classes: Names of the classes by label, where they are known before a folder is opened.
        class_count: How many there are; by default, as many as have a name.
        licence: Of the images.
        citation: Paper of the data set.
    """
    return Task(
        name=name,
        source=source or name,
        kind="classes",
        metric="top-1",
        direction="maximise",
        title=title,
        classes=classes,
        class_count=class_count or len(classes),
        split=split,
        licence=licence,
        citation=citation,
    )
