"""Facts are fields: what a name looks like decides nothing, and what cannot be is not made."""

from __future__ import annotations

import pytest

from layerscope.errors import LayerScopeError
from layerscope.types import METRICS, UNITS, Control, Draw, Task


@pytest.mark.parametrize(
    ("facts", "message", "hint"),
    [
        (("classes", "top_1", "maximise", None), "has the metric 'top_1'", "top-1"),
        (("classes", "mse", "minimise", None), "of classes has the metric 'mse'", "nll"),
        (("classes", "top-1", "minimise", None), "says 'minimise' of the metric", "'maximise'"),
        (("classes", "top-1", "up", None), "says 'up' of the metric", "'maximise'"),
        (("colours", "top-1", "maximise", None), "no kind of targets called 'colours'", "classes"),
        (("latents", "mse", "minimise", None), "has the encoding None", "raw, circular"),
        (("latents", "mse", "minimise", "polar"), "has the encoding 'polar'", "quaternion"),
        (("classes", "top-1", "maximise", "raw"), "has the encoding 'raw'", "Leave it out"),
        (("latents", "mae", "minimise", "circular"), "has the metric 'mae', which says", "mse"),
        (("none", "top-1", "maximise", None), "has the metric 'top-1'", "none"),
    ],
)
def test_a_wrong_task_fails_when_it_is_made(facts, message, hint):
    kind, metric, direction, encoding = facts
    with pytest.raises(LayerScopeError, match=message) as caught:
        Task("mine", "mine", kind, metric, direction, encoding=encoding)
    assert hint in caught.value.hint


@pytest.mark.parametrize("kind", METRICS)
def test_every_metric_of_a_kind_makes_a_task(kind):
    for metric, direction in METRICS[kind].items():
        encoding = UNITS.get(metric, "raw") if kind == "latents" else None
        assert Task("mine", "mine", kind, metric, direction, encoding=encoding).metric == metric


@pytest.mark.parametrize("words", ["all", "10%", "2.5%", "0.1%", "5/class", "100/class"])
def test_a_draw_says_what_it_was_read_from(words):
    assert str(Draw.parse(words)) == words


@pytest.mark.parametrize("words", ["", "width=64", "pca=7", "shuffled"])
def test_a_control_says_what_it_was_read_from(words):
    control = Control.parse(words)
    assert str(control) == words
    assert bool(control) == bool(words)


def test_the_five_most_likely_of_five_classes_are_no_metric():
    with pytest.raises(LayerScopeError, match="of 5 classes at most has the metric 'top-5'"):
        Task("mine", "mine", "classes", "top-5", "maximise", classes=tuple("abcde"))
    assert Task("mine", "mine", "classes", "top-5", "maximise", classes=tuple("abcdef"))
