from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerscope.report.curve import curves, title
from layerscope.report.style import save
from layerscope.types import Score, Verdict
from tests.report.conftest import figures

CHECKPOINTS, TASKS, CUTS = 4, 6, 13


@pytest.fixture(scope="module")
def drawn(scores: list[Score], verdicts: list[Verdict]) -> dict[str, Figure]:
    return figures(scores, verdicts)


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_title(loc="left")]


def lines(axes: Axes, gid: str | None = None) -> list:
    if gid is None:
        return [line for line in axes.lines if not line.get_label().startswith("_")]
    return [line for line in axes.lines if line.get_gid() == gid]


def cut_names(figure: Figure) -> list[str]:
    # Only the lowest row of panels names the cuts.
    return [label.get_text() for label in panels(figure)[-1].get_xticklabels()]


def panel(figure: Figure, heading: str) -> Axes:
    return next(axes for axes in panels(figure) if axes.get_title(loc="left") == heading)


def test_one_figure_per_source_one_of_latents_and_the_overview(drawn):
    assert set(drawn) == {"depth-objects3d", "latents-objects3d", "overview"}


def test_depth_has_a_panel_per_task_and_a_line_per_checkpoint(drawn):
    axes = panels(drawn["depth-objects3d"])
    assert len(axes) == TASKS
    assert {len(lines(one)) for one in axes} == {CHECKPOINTS}
    assert {len(lines(one, "best")) for one in axes} == {CHECKPOINTS}


def test_latents_have_a_panel_per_checkpoint_and_a_line_per_latent(drawn):
    axes = panels(drawn["latents-objects3d"])
    assert len(axes) == CHECKPOINTS
    assert {len(lines(one)) for one in axes} == {TASKS - 1}
    assert {one.get_ylabel() for one in axes} == {"nMSE, lower is better"}
    assert len({one.get_ylim() for one in axes}) == 1


def test_random_weights_are_dashed_grey_and_trained_ones_solid(drawn):
    for line in lines(panels(drawn["depth-objects3d"])[0]):
        red, green, blue = matplotlib.colors.to_rgb(line.get_color())
        random = line.get_label().endswith("-random")
        assert random == (red == green == blue)
        assert random == (line.get_linestyle() == "--")


def test_the_square_stands_at_the_verdicts_best_cut(drawn, verdicts):
    axes = panel(drawn["depth-objects3d"], "Spot θ")
    names = cut_names(drawn["depth-objects3d"])
    expected = sorted(
        (names.index(item.best), round(item.value.estimate, 9))
        for item in verdicts
        if item.task == "objects3d-spot-theta"
    )
    found = sorted(
        (int(line.get_xdata()[0]), round(float(line.get_ydata()[0]), 9))
        for line in lines(axes, "best")
    )
    assert found == expected


def test_tied_cuts_are_open_circles_beside_the_square(drawn, verdicts):
    axes = panel(drawn["depth-objects3d"], "Floor hue")
    trained = [
        item
        for item in verdicts
        if item.task == "objects3d-floor-hue" and not item.checkpoint.endswith("-random")
    ]
    circles = sum(len(line.get_xdata()) for line in lines(axes, "tied"))
    assert circles == sum(len(item.tied) - 1 for item in trained) > 0


def test_the_shade_begins_at_the_first_head_cut_and_the_dash_at_the_trunks_end(drawn):
    axes = panels(drawn["depth-objects3d"])[0]
    names = cut_names(drawn["depth-objects3d"])
    shade = next(patch for patch in axes.patches if patch.get_gid() == "head")
    assert len(names) == CUTS
    assert shade.get_x() == names.index("head.1") - 0.5
    assert shade.get_x() + shade.get_width() == names.index("head.3") + 0.5
    assert lines(axes, "trunk")[0].get_xdata()[0] == names.index("trunk")


def test_panels_say_metric_direction_and_split(drawn):
    figure = drawn["depth-objects3d"]
    assert panel(figure, "Rotation").get_ylabel() == "MSE, lower is better"
    assert panel(figure, "Category").get_ylabel() == "top-1, higher is better"
    assert "1,000 test images in 40 groups, unseen by the probes" in figure.get_suptitle()


def test_tasks_are_called_what_their_titles_say(scores, verdicts):
    figure = figures(scores, verdicts, {"objects3d-rotation": "Object rotation"})["depth-objects3d"]
    assert panel(figure, "Object rotation")
    assert panel(figure, "Spot θ")


def test_a_failed_cell_is_a_gap(
    scores: list[Score], verdicts: list[Verdict], fail: Callable[[Score], Score]
):
    rows = [fail(row) if row.cut == "layer2.0" else row for row in scores]
    figure = figures(rows, verdicts)["depth-objects3d"]
    for line in lines(panels(figure)[0]):
        missing = np.flatnonzero(np.isnan(line.get_ydata()))
        assert missing.tolist() == [3]


def test_the_band_is_the_95_percent_interval(scores):
    point = curves(scores)[0].points[0]
    assert point.high - point.value == pytest.approx(1.96 * 0.02, abs=1e-4)
    assert point.value - point.low == pytest.approx(1.96 * 0.02, abs=1e-4)


def test_networks_with_other_cut_points_share_an_axis_of_depth(scores, verdicts):
    other = [replace(row, cut=f"block{row.index}") for row in scores if row.index % 3 == 0]
    other = [
        replace(row, checkpoint="vit") for row in other if row.checkpoint == scores[0].checkpoint
    ]
    axes = panels(figures([*scores, *other], verdicts)["depth-objects3d"])[0]
    assert axes.get_xlabel() == "depth in the network"
    assert {line.get_xdata()[-1] for line in lines(axes)} == {1.0}
    assert len(lines(axes)) == CHECKPOINTS + 1


def test_the_overview_marks_the_best_cut_of_every_task_and_checkpoint(drawn, verdicts):
    axes = panels(drawn["overview"])
    squares = [patch for one in axes for patch in one.patches if patch.get_gid() == "best"]
    assert len(axes) == CHECKPOINTS
    assert len(squares) == len(verdicts)
    shares = np.asarray(axes[0].images[0].get_array())
    assert shares.shape == (TASKS, CUTS)
    assert shares.max(axis=1).tolist() == [1.0] * TASKS


def test_a_wide_range_of_errors_is_logarithmic(scores, verdicts):
    rows = [replace(row, test=row.test * (1000 if row.cut == "head.3" else 1)) for row in scores]
    figure = figures(rows, verdicts)["depth-objects3d"]
    assert panel(figure, "Rotation").get_yscale() == "log"
    assert panel(figure, "Category").get_yscale() == "linear"


def test_seeds_are_averaged_and_pooling_is_chosen_on_validation(scores):
    first = next(row for row in scores if row.direction == "minimise")
    rows = [
        replace(first, pooling="mean", seed=0, val=0.3, test=0.30),
        replace(first, pooling="mean", seed=1, val=0.3, test=0.34),
        replace(first, pooling="max", seed=0, val=0.4, test=0.10),
    ]
    assert curves(rows)[0].points[0].value == pytest.approx(0.32)


def test_a_curve_without_any_value_is_drawn_as_nothing(
    scores: list[Score], fail: Callable[[Score], Score]
):
    rows = [fail(row) for row in scores if row.checkpoint == scores[0].checkpoint]
    drawn = figures(rows, [])
    line = lines(panels(drawn["depth-objects3d"])[0])[0]
    assert all(map(math.isnan, line.get_ydata()))


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("objects3d-floor-hue", "Floor hue"),
        ("objects3d-spot-phi", "Spot φ"),
        ("inat", "Inat"),
    ],
)
def test_titles(task, expected):
    assert title(task, "objects3d") == expected


def test_files_are_the_same_bytes_every_time_and_settings_stay_untouched(
    scores, verdicts, tmp_path: Path
):
    before = dict(matplotlib.rcParams)
    few = [row for row in scores if row.task == "objects3d-category"]
    first, second = (
        [path for name, it in figures(few, verdicts).items() for path in save(it, folder / name)]
        for folder in (tmp_path / "a", tmp_path / "b")
    )
    assert [path.name for path in first] == [path.name for path in second]
    assert {path.suffix for path in first} == {".png", ".svg"}
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_panels_of_one_checkpoint_each_share_a_linear_scale(scores, verdicts):
    # One latent spans orders of magnitude at one checkpoint only, as trained networks do.
    first = (scores[0].checkpoint, "objects3d-floor-hue")
    wide = [
        replace(s, test=1e-4 * 2**s.index) if (s.checkpoint, s.task) == first else s for s in scores
    ]
    figure = figures(wide, verdicts)["latents-objects3d"]
    assert len({axes.get_ylim() for axes in panels(figure)}) == 1
    assert {axes.get_yscale() for axes in panels(figure)} == {"linear"}
