from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from layerscope.cache import open_cache
from layerscope.cli.main import app
from layerscope.probing.layer_cka import layer_cka
from tests.cli.test_probe import CUTS, features, source, write_cache

TERMINAL = CliRunner()
KEYS = [cut.key for cut in CUTS]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return write_cache(tmp_path_factory.mktemp("one"))


def run(*arguments: object):
    return TERMINAL.invoke(app, ["cka", *map(str, arguments)])


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    x, y = (rows.astype(np.float64) - rows.mean(0) for rows in (x, y))
    norm = np.linalg.norm
    return norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y))


def test_it_prints_every_pair_of_layers(cache):
    done = run(cache)
    assert done.exit_code == 0, done.output
    header, _, first, *_ = done.stdout.splitlines()
    assert header.split() == ["net", *KEYS]
    assert first.split()[:2] == [KEYS[0], "1.00"]
    assert "Unbiased linear CKA of 80 test images." in done.stdout


def test_json_holds_the_definition(cache):
    found = json.loads(run(cache, "--split", "val", "--json").stdout)
    assert (found["split"], found["images"], found["cuts"]) == ("val", 80, [KEYS, KEYS])
    with open_cache(cache) as opened:
        rows = [opened.view(cut.name, cut.pooling).features("val") for cut in CUTS]
    expected = [[by_definition(x, y) for y in rows] for x in rows]
    np.testing.assert_allclose(found["biased"], expected, rtol=1e-5)
    assert abs(found["unbiased"][0][2]) < found["biased"][0][2]


def test_fewer_images_are_spread_over_the_split(cache):
    with open_cache(cache) as opened:
        found = layer_cka(opened, images=20)
        every = np.linspace(0, 79, 20).round().astype(int)
        rows = [opened.view(cut.name, cut.pooling).features("test")[every] for cut in CUTS[:2]]
    assert found.images == 20
    assert found.biased[0, 1] == pytest.approx(by_definition(*rows), rel=1e-5)


def test_two_checkpoints_are_compared_cut_by_cut(cache, tmp_path):
    rows = features(source(), False)
    turned = rows["trunk@mean"][:, ::-1] * 3 + 1
    other = write_cache(tmp_path / "two", rows=rows | {"head.1@none": turned})
    found = json.loads(run(cache, other, "--json").stdout)
    for kind in ("biased", "unbiased"):
        assert found[kind][1][2] == pytest.approx(1, abs=1e-5)
        assert found[kind][0][2] < 0.9


def test_a_layer_that_does_not_vary_is_left_blank(tmp_path):
    rows = features(source(), False) | {"trunk@mean": np.full((400, 6), 0.1, np.float32)}
    cache = write_cache(tmp_path / "dead", rows=rows)
    found = json.loads(run(cache, "--json").stdout)
    assert found["biased"][1] == [None, None, None]
    line = run(cache).stdout.splitlines()[3]
    assert line.split() == ["trunk@mean"]


def test_the_heat_map_is_drawn_where_it_is_asked_for(cache, tmp_path):
    done = run(cache, "-o", tmp_path / "report")
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"cka-net.png", "cka-net.svg", "cka", "settings.json"}
    assert "The heat map is" in done.stderr
    assert (tmp_path / "report" / "cka-net.svg").read_text().count('id="head"') == 2


def test_other_images_are_refused(cache, tmp_path):
    made_of = source()
    renamed = replace(made_of, ids=tuple(f"other{i}.png" for i in range(len(made_of.ids))))
    other = write_cache(tmp_path / "two", made_of=renamed)
    done = run(cache, other)
    assert done.exit_code == 2
    assert "hold different test images" in done.stderr
    assert "Extract both checkpoints from the same source" in done.stderr


def test_three_caches_are_too_many(cache, tmp_path):
    others = [write_cache(tmp_path / name) for name in ("two", "three")]
    done = run(cache, *others)
    assert done.exit_code == 2
    assert "3 caches were given" in done.stderr


def test_features_that_are_not_finite_are_named(tmp_path):
    rows = features(source(), False)
    rows["head.1@none"][:] = np.inf
    done = run(write_cache(tmp_path / "broken", rows=rows))
    assert done.exit_code == 2
    assert "Features of 'head.1@none' of net are not finite" in done.stderr
