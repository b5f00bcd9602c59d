from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

import layerscope
from layerscope.errors import LayerScopeError
from layerscope.results import Results, open_results
from layerscope.results.labelled_array import AXES, VALUES, labelled
from tests.report.conftest import CUTS


@pytest.fixture
def stored(tmp_path, scores) -> Results:
    results = Results(tmp_path / "results")
    results.append(scores)
    return results


def test_every_score_is_at_its_names(stored, scores):
    table = stored.to_xarray()
    assert tuple(table.dims) == AXES
    for score in scores:
        cell = table.sel({axis: getattr(score, axis) for axis in AXES})
        for name in VALUES:
            assert float(cell[name]) == getattr(score, name)
    assert int(table["test"].notnull().sum()) == len(scores)


def test_a_missing_cell_and_a_failed_one_are_not_a_number(scores, fail):
    table = labelled([fail(scores[0]), *scores[2:]])
    for score in scores[:2]:
        cell = table.sel({axis: getattr(score, axis) for axis in AXES})
        assert math.isnan(cell["test"])
        assert math.isnan(cell["val"])


def test_cuts_are_in_the_order_of_their_depth(scores):
    table = labelled(scores[::-1])
    assert table["cut"].values.tolist() == list(CUTS)
    assert np.all(np.diff(table["depth"]) > 0)
    assert table["index"].values.tolist() == list(range(len(CUTS)))
    assert table["part"].sel(cut=["trunk", "head.1"]).values.tolist() == ["trunk", "head"]


def test_what_networks_do_not_agree_on_is_left_out(scores):
    other = replace(scores[1], checkpoint="deeper", index=7, depth=0.99)
    table = labelled([*scores, other])
    assert not {"depth", "index"} & set(table.coords)
    assert "part" in table.coords
    assert sorted(table["cut"].values) == sorted(CUTS)


def test_axes_keep_the_order_of_the_table(scores):
    table = labelled(scores)
    for axis in ("checkpoint", "task", "metric"):
        assert table[axis].values.tolist() == list(dict.fromkeys(getattr(s, axis) for s in scores))


def test_no_scores_are_an_empty_table(tmp_path):
    table = Results(tmp_path).to_xarray()
    assert dict(table.sizes) == dict.fromkeys(AXES, 0)


def test_without_xarray_it_is_said_how_to_get_it(scores, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(LayerScopeError, match="xarray") as caught:
        labelled(scores)
    assert "layerscope[xarray]" in caught.value.hint


def test_results_are_opened_from_their_folder(stored, scores):
    assert layerscope.open_results is open_results
    opened = layerscope.open_results(stored.folder)
    assert opened.scores() == stored.scores()
    assert len(opened.scores()) == len(scores)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LayerScopeError, match="no results folder") as caught:
        open_results(tmp_path / "none")
    assert "layerscope probe" in caught.value.hint
