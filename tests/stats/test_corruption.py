"""Corruption errors against a table that was worked out by hand."""

import pytest

from layerscope.data.tasks.inc import ALEXNET
from layerscope.stats.corruption import corruption_error, mean_corruption_error

# Errors of an imaginary network at severities 1 to 5, and AlexNet's mean error.
TABLE = {
    "noise": ([0.2, 0.3, 0.4, 0.5, 0.6], 0.8),  # sum 2.0 of 4.0: 0.5
    "blur": ([0.1, 0.1, 0.1, 0.1, 0.1], 0.5),  # sum 0.5 of 2.5: 0.2
    "weather": ([0.6, 0.7, 0.8, 0.9, 1.0], 0.8),  # sum 4.0 of 4.0: 1.0
}
BY_HAND = {"noise": 0.5, "blur": 0.2, "weather": 1.0}
MEAN_BY_HAND = 1.7 / 3


@pytest.mark.parametrize("name", sorted(TABLE))
def test_each_corruption_is_the_table_worked_out_by_hand(name):
    assert corruption_error(*TABLE[name]) == pytest.approx(BY_HAND[name], rel=1e-12)


def test_the_mean_is_over_the_corruptions_of_the_baseline():
    errors = {name: values for name, (values, _) in TABLE.items()}
    baseline = {name: value for name, (_, value) in TABLE.items()}
    assert mean_corruption_error(errors, baseline) == pytest.approx(MEAN_BY_HAND, rel=1e-12)
    more = errors | {"spatter": [1.0] * 5}
    assert mean_corruption_error(more, baseline) == pytest.approx(MEAN_BY_HAND, rel=1e-12)
    with pytest.raises(KeyError):
        mean_corruption_error({"noise": [0.1] * 5}, baseline)


def test_alexnet_itself_has_an_error_of_one():
    errors = {name: [value] * 5 for name, value in ALEXNET.items()}
    assert mean_corruption_error(errors, ALEXNET) == pytest.approx(1.0, rel=1e-12)


def test_the_published_baseline_has_fifteen_corruptions():
    # The sum of the figures in hendrycks/robustness, added up by other means.
    assert len(ALEXNET) == 15
    assert sum(ALEXNET.values()) == pytest.approx(11.834896, abs=1e-9)
