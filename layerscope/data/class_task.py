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

    The arguments are the fields of :class:`~layerscope.types.Task`. By default the source is called
    like the task, and there are as many classes as have a name.
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
