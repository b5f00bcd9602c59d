"""What is no estimator is refused by a message, and what is one has defaults."""

import pytest
from layerscope.probing.sweep import sweep

from layerscope.errors import SettingsError
from layerscope.estimators import estimators
from layerscope.estimators.naming import make, require_estimator
from layerscope.types import Estimator, Measure


class Duck:
    name = "duck"

    def __init__(self, seed=0):
        self.seed = seed

    def handles(self, task):
        return False

    def score(self, view, tasks):
        return iter(())


class Complete(Duck, Estimator):
    pass


class Unnamed(Duck, Estimator):
    name = None


class Unscored(Estimator):
    name = "unscored"

    def handles(self, task):
        return False


class Undefined(Duck, Measure):
    pass


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Duck, "'Duck' does not derive from Estimator"),
        (Unnamed, "'Unnamed' has no name"),
        (Unscored, "'mine' has no score"),
        (Undefined, "'mine' has no definition"),
    ],
)
def test_what_lacks_something_is_refused_by_name(monkeypatch, kind, message):
    monkeypatch.setitem(estimators._items, "mine", kind)
    with pytest.raises(SettingsError, match=message) as caught:
        make("mine", 0)
    assert caught.value.hint


def test_a_sweep_refuses_what_is_no_estimator(tmp_path):
    with pytest.raises(SettingsError, match="'Duck' does not derive") as caught:
        sweep([], [], [Duck()], tmp_path)
    assert "layerscope.types.Estimator" in caught.value.hint


def test_an_estimator_is_itself_with_another_seed_and_among_any_cuts_unless_it_says_otherwise():
    one = Complete()
    assert require_estimator(one) is one
    assert one.with_seed(5) is one
    assert one.among(()) is one
