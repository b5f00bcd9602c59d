"""What stands beside the verdicts, as figures and tables."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from layerscope.report.evidence import Evidence, gather
from layerscope.report.section import Finding, find_all
from layerscope.report.sections import scorecard, series
from layerscope.report.style import save, styled
from layerscope.results.store import Results
from tests.report.planted import CUTS, folder, measure, probe

EPOCHS = (1, 3, 5, 7, 9, 11, 13, 15)
RATES = (0.1, 0.2, 0.3, 0.4)


def accuracy(cut: str, epoch: int, rate: float) -> float:
    over = 0.03 * max(epoch - 5, 0) if cut.startswith("head") else 0.0
    return 0.5 + 0.02 * min(epoch, 5) + 0.02 * CUTS.index(cut) - over - 0.05 * rate


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Results:
    scores, known = [], {}
    for rate in RATES:
        for epoch in EPOCHS:
            name = f"lr{rate}-{epoch:02d}"
            known[name] = {"epoch": epoch, "lr": rate}
            for cut in CUTS:
                value = accuracy(cut, epoch, rate)
                scores += [
                    probe(cut, value, checkpoint=name, shift=epoch),
                    measure(cut, value, checkpoint=name),
                    measure(cut, -value, checkpoint=name, name="coding-rate", task="toy-kind"),
                ]
    return folder(tmp_path_factory.mktemp("results"), scores, known)


@pytest.fixture(scope="module")
def gathered(stored) -> Evidence:
    return gather(stored)


@pytest.fixture(scope="module")
def beside(gathered) -> dict[str, Finding]:
    with styled():
        return find_all(gathered)


@pytest.fixture(scope="module")
def drawn(beside) -> dict[str, Figure]:
    return {name: it for found in beside.values() for name, it in found.figures.items()}


def lines(figure: Figure, gid: str) -> list[list]:
    return [
        [line for line in axes.lines if line.get_gid() == gid]
        for axes in figure.axes
        if axes.get_visible()
    ]


def test_every_figure_is_there(drawn):
    names = ("depth", "measures", "scorecard", "series", "series-measures", "grid")
    assert set(drawn) == {f"{name}-toy" for name in names} | {"overview"}


def test_depth_shows_probes_alone_and_of_a_series_its_last_snapshot(drawn):
    (axes,) = [axes for axes in drawn["depth-toy"].axes if axes.get_visible()]
    labels = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    assert labels == [f"lr{rate}-15" for rate in RATES]
    assert axes.get_ylabel() == "top-1, higher is better"


def test_measures_have_a_panel_each_and_no_marks_of_a_verdict(drawn):
    figure = drawn["measures-toy"]
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert titles == ["rankme", "coding-rate · Kind"]
    (legend,) = figure.legends
    assert "tied with it" not in [text.get_text() for text in legend.get_texts()]


def test_series_have_a_column_for_each_place_and_a_line_for_each_run(drawn):
    figure = drawn["series-toy"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["early layer: layer2", "end of trunk: trunk", "last layer: head.2"]
    assert [len(found) for found in lines(figure, "run")] == [len(RATES)] * 3
    # Planted: the head is best at epoch 5 and shown to fall, the trunk stays where it was.
    *_, peaks = lines(figure, "peak")
    assert {line.get_xdata()[0] for line in peaks} == {5.0}
    assert [len(found) for found in lines(figure, "fall")] == [0, 0, len(RATES)]
    # In grey, too, no two lines are drawn alike.
    assert len({str(line._unscaled_dash_pattern) for line in lines(figure, "run")[0]}) == 4


def test_measures_along_training_are_rows_of_a_figure_of_their_own(drawn):
    figure = drawn["series-measures-toy"]
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert labels == ["rankme", "coding-rate\nrankme, Kind"]
    assert [len(found) for found in lines(figure, "run")] == [len(RATES)] * 6


def test_the_grid_has_a_point_for_each_run_at_its_last_snapshot(drawn, beside):
    (grid,) = beside["grids"].records
    (axes,) = [axes for axes in drawn["grid-toy"].axes if axes.get_visible()]
    shown = sorted(
        (float(c[0].get_xdata()[0]), float(c[0].get_ydata()[0])) for c in axes.containers
    )
    planted = sorted((accuracy("trunk", 15, r), accuracy("head.2", 15, r)) for r in RATES)
    assert [value for pair in shown for value in pair] == pytest.approx(
        [value for pair in planted for value in pair],
        abs=1.3e-3,  # whole rows of 400
    )
    assert axes.get_xlim() == axes.get_ylim()
    assert len({container[0].get_marker() for container in axes.containers}) == len(RATES)
    assert f"τ {grid.tau.estimate:.2f}" in axes.texts[0].get_text()


def test_a_scorecard_of_many_checkpoints_is_a_cloud_with_its_median(drawn, beside):
    left, right = drawn["scorecard-toy"].axes
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "rankme",
        "coding-rate (rankme, with labels)",
    ]
    taus = [one.tau.estimate for one in beside["scorecard"].records if one.measure == "rankme"]
    (first, _), _ = lines(drawn["scorecard-toy"], "standing")
    assert list(first.get_xdata()) == taus
    assert [line.get_xdata()[0] for line in lines(drawn["scorecard-toy"], "median")[0]] == [1, -1]
    assert right.get_xlabel() == "regret in top-1"


def test_a_scorecard_of_few_has_marks_intervals_and_what_chance_costs(beside):
    some = [
        one for one in beside["scorecard"].records if one.checkpoint in ("lr0.1-15", "lr0.2-15")
    ]
    figure = scorecard.scorecard_figure(some, {})
    marks = lines(figure, "standing")
    assert [len(found) for found in marks] == [4, 4]
    assert len({line.get_marker() for line in marks[0]}) == 2
    chance = sorted(line.get_xdata()[0] for line in lines(figure, "random")[1])
    assert chance == pytest.approx(sorted(one.regret_random.estimate for one in some))


def test_tables_have_what_their_headers_say(beside, gathered):
    tables = [*beside["scorecard"].tables, *beside["series"].tables]
    assert len(tables) == 3
    for table in tables:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.header)}
    judged = {row[3]: row[-1] for row in series.cells(gathered.series[0])}
    assert judged["head.2"] == "over-fits"
    assert judged["layer2"] != "over-fits"


def test_series_in_csv_have_one_row_for_each_number(beside, gathered):
    rows = list(csv.DictReader(StringIO(beside["series"].files["series.csv"])))
    probes = [row for row in rows if row["estimator"] == "logistic"]
    assert len(probes) == len(RATES) * len(EPOCHS) * len(CUTS)
    first = gathered.series[0][0]
    row = next(r for r in probes if (r["run"], r["cut"], r["epoch"]) == ("lr 0.1", "head.2", "5.0"))
    assert float(row["test"]) == first.curve("head.2").test[2]
    assert row["checkpoint"] == "lr0.1-05"
    # Two measures at the three cuts that figures show.
    assert len(rows) - len(probes) == len(RATES) * len(EPOCHS) * 2 * 3


def test_scorecard_and_grid_in_csv_have_one_number_to_a_column(beside):
    row = next(csv.DictReader(StringIO(beside["scorecard"].files["scorecard.csv"])))
    assert float(row["regret_low"]) == beside["scorecard"].records[0].regret.low
    row = next(csv.DictReader(StringIO(beside["grids"].files["grids.csv"])))
    assert float(row["at_trunk"]) == beside["grids"].records[0].points[0].at_trunk


def test_figures_can_be_written(drawn, tmp_path: Path):
    paths = save(drawn["series-toy"], tmp_path / "series-toy")
    assert {path.name for path in paths} == {"series-toy.png", "series-toy.svg"}
