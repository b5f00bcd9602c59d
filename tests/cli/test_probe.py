from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from layerscope.cache import CacheWriter, Header, ingredients
from layerscope.cli.main import app
from layerscope.types import Checkpoint, CutPoint, Preprocessing, Source, Task

ROWS, SIZE = 400, 4
CUTS = (
    CutPoint(0, "layer1.0", "trunk.layer1.0", "trunk", 6, "mean", 0.0),
    CutPoint(1, "trunk", "trunk.avgpool", "trunk", 6, "mean", 0.5),
    CutPoint(2, "head.1", "head.1", "head", 6, "none", 1.0),
)
KIND = Task("toy-kind", "toy", "classes", "top-1", "maximise", title="Kind", classes=("a", "b"))
POSE = Task("toy-pose", "toy", "latents", "mse", "minimise", title="Pose", encoding="raw")
TERMINAL = CliRunner()


def source() -> Source:
    rng = np.random.default_rng(0)
    group = np.arange(ROWS) // SIZE
    return Source(
        name="toy",
        ids=tuple(f"{i}.png" for i in range(ROWS)),
        splits=np.array(["train", "train", "train", "val", "test"])[group % 5],
        groups=np.array([f"object{i}" for i in group]),
        tasks=(KIND, POSE),
        targets={KIND.name: rng.integers(0, 2, ROWS), POSE.name: rng.standard_normal((ROWS, 1))},
        manifest="m" * 64,
        annotations="a" * 64,
        root=Path("/nowhere"),
    )


def features(of: Source, broken: bool) -> dict[str, np.ndarray]:
    """The pose is written into the first cut and fades with depth; the kind is in the trunk."""
    rng = np.random.default_rng(1)
    rows = {cut.key: rng.standard_normal((ROWS, cut.width)).astype(np.float32) for cut in CUTS}
    for cut, strength in zip(CUTS, (3.0, 1.0, 0.0), strict=True):
        rows[cut.key][:, 0] += strength * of.targets[POSE.name][:, 0]
    rows["trunk@mean"][:, 1] += 5 * of.targets[KIND.name]
    if broken:
        rows["head.1@none"][7, 2] = np.inf
    return rows


def write_cache(
    folder: Path,
    *,
    broken: bool = False,
    rows: dict[str, np.ndarray] | None = None,
    made_of: Source | None = None,
    cuts: tuple[CutPoint, ...] = CUTS,
) -> Path:
    made_of = made_of or source()
    card = Checkpoint(
        name="net",
        family="toy",
        architecture={},
        weights=None,
        sha256="a" * 64,
        preprocessing=Preprocessing(8, None, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
        head="1 layer",
        licence="CC0",
        citation="",
    )
    parts = ingredients(
        card, cuts, made_of, card.preprocessing, decoder="pillow", precision="float32"
    )
    with CacheWriter(folder / "net@toy.h5", Header(card, cuts, made_of, parts, {})) as writer:
        kept = np.ones(len(made_of.ids), dtype=bool)
        writer.write(writer.missing, rows or features(made_of, broken), kept)
        return writer.finish()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "features")


def probe(cache: Path, *more: str):
    out = str(cache.parent.parent / "results")
    return TERMINAL.invoke(app, ["probe", str(cache), "-o", out, *more])


def test_it_prints_where_to_cut_and_how_sure_that_is(cache):
    done = probe(cache)
    assert done.exit_code == 0, done.output
    assert "Pose: cut at layer1.0 (mse" in done.stdout
    assert "Kind: cut at trunk (top-1" in done.stdout
    assert "6 cells computed, 0 kept" in done.stderr


def test_json_holds_verdicts_and_scores(cache):
    found = json.loads(probe(cache, "--json").stdout)
    assert {verdict["task"]: verdict["best"] for verdict in found["verdicts"]} == {
        POSE.name: "layer1.0",
        KIND.name: "trunk",
    }
    assert len(found["scores"]) == 3 * (4 + 4)
    assert {score["status"] for score in found["scores"]} == {"done"}


def test_one_cut_for_all_tasks_is_said_with_what_it_costs(cache):
    # The pose is read best at the first cut and the kind only at the trunk, which pays for both.
    found = json.loads(probe(cache, "--json").stdout)["across"]
    assert [(one["checkpoint"], one["cut"], one["left_out"]) for one in found] == [
        ("net", "trunk", [])
    ]
    assert {one["task"]: one["own"] for one in found[0]["tasks"]} == {
        POSE.name: "layer1.0",
        KIND.name: "trunk",
    }
    assert (
        "net: One cut for all 2 tasks: trunk; against each task's own best" in probe(cache).stdout
    )


def test_a_single_task_has_no_cut_across_tasks(cache):
    done = probe(cache, "--tasks", "toy-pose", "--json")
    assert json.loads(done.stdout)["across"] == []


def test_the_same_command_computes_nothing_and_prints_the_same(cache):
    out = str(cache.parent.parent / "results")
    first = probe(cache)
    second = TERMINAL.invoke(app, ["probe", str(cache.parent), "-o", out])
    assert "0 cells computed, 6 kept" in second.stderr
    assert first.stdout == second.stdout


def test_the_settings_lie_beside_the_results(cache):
    probe(cache, "--tasks", "*pose", "--seed", "3")
    path = cache.parent.parent / "results" / "settings.json"
    known = json.loads(path.read_text())["probe"]
    assert (known["tasks"], known["seed"], known["existing"]) == ("*pose", 3, "missing")
    again = TERMINAL.invoke(app, ["--config", str(path), "probe", "--json"])
    assert again.exit_code == 0, again.output
    assert [verdict["task"] for verdict in json.loads(again.stdout)["verdicts"]] == [POSE.name]


def test_tasks_and_estimators_are_chosen_by_name(cache):
    found = json.loads(
        probe(cache, "--tasks", "toy-pose", "--estimators", "ridge", "--json").stdout
    )
    assert {score["estimator"] for score in found["scores"]} == {"ridge"}
    assert {score["task"] for score in found["scores"]} == {POSE.name}


def test_a_failed_cell_is_a_finding(tmp_path):
    done = probe(write_cache(tmp_path / "features", broken=True), "--json")
    assert done.exit_code == 1
    assert (
        "Failed: net, head.1 toy-kind, head.1 toy-pose: 1 features of 'head.1' are not finite"
        in done.stderr
    )
    rows = json.loads(done.stdout)["scores"]
    assert {row["test"] for row in rows if row["status"] == "failed"} == {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tasks", "toy-poze"), "no task called 'toy-poze'"),
        (("--estimators", "rigde"), "no estimator called 'rigde'"),
        (("--tasks", "toy-kind", "--estimators", "ridge"), "can score toy-kind"),
    ],
)
def test_wrong_names_are_wrong_use(cache, options, message):
    done = probe(cache, *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Hint: " in done.stderr
    assert not done.stdout


# Estimators by name, and what fails.

OWN = """
import numpy as np


class Picky:
    '''Fails where the first feature is large, as it is in the first cut.'''

    def fit(self, rows, targets):
        if abs(np.corrcoef(rows[:, 0], rows[:, 1])[0, 1]) > 0.5:
            raise ValueError("the features are too alike")
        self.first = targets[0]

    def predict(self, rows):
        return np.full(len(rows), self.first)
"""


def scored(done) -> dict[tuple[str, str, str], dict]:
    rows = json.loads(done.stdout)["scores"]
    return {(row["cut"], row["task"], row["estimator"]): row for row in rows if row["primary"]}


def test_without_names_it_is_logistic_and_ridge(cache):
    found = scored(probe(cache, "--json"))
    assert {(task, estimator) for _, task, estimator in found} == {
        (KIND.name, "logistic"),
        (POSE.name, "ridge"),
    }


def test_names_presets_and_import_paths_go_together(cache):
    chosen = "lda,sgd:vissl-in1k,sklearn.neighbors.KNeighborsClassifier(n_neighbors=5, p=1)"
    done = probe(cache, "--tasks", "toy-kind", "--estimators", chosen, "--json")
    assert done.exit_code == 0, done.output
    found = scored(done)
    assert {estimator for _, _, estimator in found} == {
        "lda",
        "sgd:vissl-in1k",
        "sklearn.neighbors.KNeighborsClassifier(n_neighbors=5, p=1)",
    }
    assert all(row["test"] > 0.9 for (cut, _, _), row in found.items() if cut == "trunk")
    again = probe(cache, "--tasks", "toy-kind", "--estimators", chosen)
    assert "0 cells computed, 9 kept" in again.stderr
    assert "net, lda: Kind: cut at trunk (top-1" in again.stdout
    assert "net, sgd:vissl-in1k: Kind: cut at trunk (top-1" in again.stdout


def test_one_cell_of_ones_own_estimator_fails_and_the_run_goes_on(tmp_path, monkeypatch):
    (tmp_path / "picky_estimator.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    made_of, folder = source(), tmp_path / "features"
    rows = features(made_of, broken=False)
    rows["trunk@mean"][:, 1] = rows["trunk@mean"][:, 0]
    cache = write_cache(folder, rows=rows)
    done = probe(cache, "--estimators", "picky_estimator.Picky,ridge", "--json")
    assert done.exit_code == 1
    found = scored(done)
    failed = {cell for cell, row in found.items() if row["status"] == "failed"}
    assert failed == {("trunk", task, "picky_estimator.Picky") for task in (KIND.name, POSE.name)}
    assert all("ValueError: the features are too alike" in found[cell]["note"] for cell in failed)
    assert all(found[cell]["test"] is None for cell in failed)
    assert len(found) == 3 * 3
    assert (
        "Failed: net, trunk toy-kind, trunk toy-pose: picky_estimator.Picky raised" in done.stderr
    )


def test_predictions_that_are_no_numbers_are_failed_cells(cache, tmp_path, monkeypatch):
    (tmp_path / "lost_estimator.py").write_text(
        "import numpy as np\n\n\n"
        "class Lost:\n"
        "    def fit(self, rows, targets): ...\n"
        "    def predict(self, rows): return np.full(len(rows), np.nan)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done = probe(
        cache, "--tasks", "toy-pose", "--estimators", "lost_estimator.Lost,ridge", "--json"
    )
    assert done.exit_code == 1, done.output
    status = {(name, row["status"]) for (_, _, name), row in scored(done).items()}
    assert status == {("lost_estimator.Lost", "failed"), ("ridge", "done")}


ALL = "logistic,ncm,lda,knn,ridge-classifier,sgd:vissl-in1k,sklearn.svm.LinearSVC"


@pytest.mark.parametrize(
    ("damage", "message"),
    [("nan", "are not finite"), ("constant", "is constant"), ("one class", "a single class")],
)
def test_every_classifier_has_a_clear_outcome_for_what_cannot_be_learned(tmp_path, damage, message):
    made_of = source()
    rows = features(made_of, broken=False)
    if damage == "nan":
        rows["trunk@mean"][3, 1] = np.nan
    elif damage == "constant":
        rows["trunk@mean"][:] = 0.1
    else:
        made_of.targets[KIND.name][:] = 1
    cache = write_cache(tmp_path / "features", rows=rows, made_of=made_of)
    done = probe(cache, "--tasks", "toy-kind", "--estimators", ALL, "--json")
    assert done.exit_code == 1
    found = scored(done)
    failed = {cell for cell, row in found.items() if row["status"] == "failed"}
    cuts = [cut.name for cut in CUTS] if damage == "one class" else ["trunk"]
    assert failed == {(cut, KIND.name, name) for cut in cuts for name in ALL.split(",")}
    assert all(message in found[cell]["note"] for cell in failed)
    assert len(found) == 3 * 7


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_a_split_lacks_fails_nothing(tmp_path, split):
    made_of = source()
    made_of.targets[KIND.name][made_of.splits == split] = 1
    cache = write_cache(tmp_path / "features", rows=features(made_of, False), made_of=made_of)
    done = probe(cache, "--tasks", "toy-kind", "--estimators", ALL, "--json")
    assert done.exit_code == 0, done.output
    assert {row["status"] for row in scored(done).values()} == {"done"}


def test_an_estimator_that_is_none_is_wrong_use(cache):
    for name, message in (
        ("sgd:moko", "The presets are sgd:barlow, "),
        ("sklearn.svm.LinearSVC(C=open('x'))", "have to be literals"),
        ("sklearn.svm.LinearSVC(C=1", "open bracket"),
        ("sklearn.cluster.KMeans", "is a clusterer"),
    ):
        done = probe(cache, "--estimators", name)
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())


def test_measures_are_scored_beside_probes_and_choose_nothing(cache):
    done = probe(cache, "--estimators", "logistic,rankme,coding-rate")
    assert done.exit_code == 0, done.output
    assert "Kind: cut at trunk (top-1" in done.stdout
    assert "coding-rate-reduction of toy-kind" in done.stdout
    assert "no measure has chosen a cut" in done.stdout
    # One cell of the classes at each cut, one of no labels for each measure.
    assert "12 cells computed, 0 kept" in done.stderr
    assert (
        "0 cells computed, 12 kept"
        in probe(cache, "--estimators", "logistic,rankme,coding-rate").stderr
    )


def test_each_setting_of_a_measure_is_a_column_of_its_own_and_seeds_are_averaged(cache):
    names = "coding-rate(width='own'),coding-rate(width='own',eps_sq=0.1)"
    done = probe(cache, "--tasks", "toy-pose", "--estimators", names, "--json")
    value = {}
    for one in json.loads(done.stdout)["scores"]:
        if one["primary"] and one["cut"] == "trunk":
            value[one["estimator"]] = f"{one['test']:.4g} ±"
    assert len(set(value.values())) == 2
    text = probe(cache, "--tasks", "toy-pose", "--estimators", names).stdout
    (line,) = [line for line in text.splitlines() if line.split()[2:3] == ["trunk"]]
    assert line.split()[1] == "toy"
    assert all(shown in line for shown in value.values())
    assert all(name in text for name in value)
    seeded = ("--tasks", "toy-pose", "--estimators", "coding-rate(width=2)", "--seeds", "3")
    scores = json.loads(probe(cache, *seeded, "--json").stdout)["scores"]
    tests = [
        one["test"]
        for one in scores
        if one["estimator"] == "coding-rate(width=2)" and one["primary"] and one["cut"] == "trunk"
    ]
    assert len(set(tests)) == 3
    assert f"{sum(tests) / 3:.4g} ±" in probe(cache, *seeded).stdout


def test_measures_without_labels_need_no_task(cache):
    found = json.loads(
        probe(cache, "--tasks", "toy-pose", "--estimators", "nesum", "--json").stdout
    )
    assert found["verdicts"] == []
    assert [(one["cut"], one["task"], one["metric"]) for one in found["scores"]] == [
        (cut.name, "none", "nesum") for cut in CUTS
    ]


def test_a_measure_that_is_refused_is_a_failed_cell_with_its_reason(cache):
    done = probe(cache, "--estimators", "lidar,rankme")
    assert done.exit_code == 1
    assert "Failed: net, layer1.0 none, trunk none, head.1 none: 'lidar' compares" in done.stderr
    assert "rankme" in done.stdout


def test_measures_are_said_to_be_no_estimators_of_a_misspelt_setting(cache):
    done = probe(cache, "--estimators", "coding-rate(eps=1)")
    assert done.exit_code == 2
    assert "'coding-rate' has no setting 'eps'" in done.stderr
    assert "eps_sq" in done.stderr


def test_cka_among_estimators_leads_to_its_command(cache):
    done = probe(cache, "--estimators", "cka")
    assert done.exit_code == 2
    assert "Use layerscope cka" in done.stderr


# The metric that chooses and judges.


def rare(folder: Path) -> Path:
    """A class of 2 % that one cut reads, and a latent; top-1 of always the other class is 0.98."""
    rng = np.random.default_rng(5)
    made_of = source()
    rows = 10 * ROWS
    kind = (rng.random(rows) < 0.02).astype(np.int64)
    layers = {cut.key: rng.standard_normal((rows, 6)).astype(np.float32) for cut in CUTS}
    layers["layer1.0@mean"][:, 0] += 2 * kind
    layers["trunk@mean"][:, 0] += 0.3 * kind
    many = replace(
        made_of,
        ids=tuple(f"{i}.png" for i in range(rows)),
        splits=np.array(["train", "train", "train", "val", "test"])[np.arange(rows) % 5],
        groups=np.array([f"image{i}" for i in range(rows)]),
        targets={KIND.name: kind, POSE.name: rng.standard_normal((rows, 1))},
    )
    return write_cache(folder, made_of=many, rows=layers)


@pytest.fixture(scope="module")
def with_a_rare_class(tmp_path_factory) -> Path:
    return rare(tmp_path_factory.mktemp("rare") / "features")


def verdict_by(cache: Path, out: Path, *more: str):
    asked = ("--tasks", "toy-kind", "--estimators", "lda", "--json", *more)
    done = TERMINAL.invoke(app, ["probe", str(cache), "-o", str(out), *asked])
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["verdicts"]
    return found


def test_top_1_is_blind_to_a_rare_class_and_other_metrics_are_not(with_a_rare_class, tmp_path):
    blind = verdict_by(with_a_rare_class, tmp_path / "top-1")
    assert blind["metric"] == "top-1"
    assert {"layer1.0", "trunk"} <= set(blind["tied"])
    for word, metric in (
        ("auroc", "auroc"),
        ("mean-per-class", "mean-per-class"),
        ("balanced-accuracy", "mean-per-class"),
    ):
        found = verdict_by(with_a_rare_class, tmp_path / word, "--metric", word)
        assert (found["metric"], found["direction"]) == (metric, "maximise")
        assert found["best"] == "layer1.0"
    found = verdict_by(with_a_rare_class, tmp_path / "auroc", "--metric", "auroc")
    assert found["tied"] == ["layer1.0"]
    assert found["gain"]["low"] > 0.1


def test_scores_by_another_metric_take_the_place_of_those_before(with_a_rare_class, tmp_path):
    asked = ("--tasks", "toy-kind", "--estimators", "lda")

    def run(*more: str):
        command = ["probe", str(with_a_rare_class), "-o", str(tmp_path), *asked, *more]
        return TERMINAL.invoke(app, command)

    assert "take their place" not in run().stderr
    told = run("--metric", "auroc")
    assert "toy-kind: " in told.stderr
    assert "holds scores by top-1. Those by auroc take their place" in told.stderr
    assert "3 cells computed, 0 kept" in told.stderr
    assert "0 cells computed, 3 kept" in run("--metric", "auroc").stderr
    kept = run("--existing", "keep")
    assert "There are none by top-1, and none are computed." in kept.stderr
    assert "No verdict" in kept.stdout
    assert "holds scores by auroc. Those by top-1 take their place" in run().stderr


def test_a_metric_is_for_tasks_of_the_kinds_that_have_it(cache):
    found = json.loads(probe(cache, "--metric", "mae", "--json").stdout)["verdicts"]
    assert {it["task"]: it["metric"] for it in found} == {POSE.name: "mae", KIND.name: "top-1"}


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (("--metric", "aurok"), "no metric called 'aurok'", "auroc"),
        (("--metric", "auroc", "--tasks", "toy-pose"), "of latents has the metric 'auroc'", "mse"),
        (("--metric", "geodesic"), "has the metric 'geodesic'", "Choose"),
        (("--metric", "top-5", "--tasks", "toy-kind"), "of 5 classes at most", "top-1"),
    ],
)
def test_a_metric_that_no_task_has_is_wrong_use(cache, options, message, hint):
    done = probe(cache, *options)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert hint in done.stderr
    assert not done.stdout


def test_an_estimator_that_gives_labels_alone_refuses_what_ranks(cache):
    name = "sklearn.svm.SVC(decision_function_shape='ovo', kernel='linear')"
    done = probe(cache, "--tasks", "toy-kind", "--metric", "nll", "--estimators", name)
    assert done.exit_code == 1
    assert "cannot choose a cut of 'toy-kind' by 'nll'" in done.stderr
