"""The checks of an estimator find what is wrong with one: each fault here is easily made."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from layerscope.cli.main import app
from layerscope.errors import EstimatorError, SettingsError
from layerscope.estimators import estimators
from layerscope.estimators.discriminants import NearestClassMean
from layerscope.estimators.spectral import RankMe
from layerscope.testing import HeldLayer, check_estimator, planted_layer
from layerscope.types import Estimator, Measure


class Faulty(Estimator):
    """The nearest class mean, or a measure, under another name."""

    name = "faulty"

    def __init__(self, seed=0, sound=NearestClassMean):
        self.sound = sound(seed)

    def handles(self, task):
        return self.sound.handles(task)

    def score(self, view, tasks):
        for score in self.sound.score(view, tasks):
            yield self.changed(dataclasses.replace(score, estimator=self.name), view)

    def changed(self, score, view):
        return score


class Nameless(Faulty):
    def changed(self, score, view):
        return dataclasses.replace(score, estimator="ncm")


class Lossless(Faulty):
    def changed(self, score, view):
        return dataclasses.replace(score, losses=None)


class Boastful(Faulty):
    def changed(self, score, view):
        return dataclasses.replace(score, test=score.test + 0.1) if score.primary else score


class Twofold(Faulty):
    def changed(self, score, view):
        return dataclasses.replace(score, primary=True)


class Negative(Faulty):
    def changed(self, score, view):
        return dataclasses.replace(score, stderr=-score.stderr)


class OutOfOrder(Faulty):
    def changed(self, score, view):
        if score.losses is None:
            return score
        ordered = dataclasses.replace(score.losses, test=np.sort(score.losses.test))
        return dataclasses.replace(score, losses=ordered)


class Ungrouped(Faulty):
    def changed(self, score, view):
        error = np.sqrt(max(score.test * (1 - score.test), 1e-9) / score.n_test)
        return dataclasses.replace(score, stderr=float(error))


class Restless(Faulty):
    """It errs on some more rows each time."""

    calls = 0

    def score(self, view, tasks):
        self.calls += 1
        yield from super().score(view, tasks)

    def changed(self, score, view):
        if score.losses is None:
            return score
        test = score.losses.test.copy()
        test[: 5 * self.calls] = 1
        losses = dataclasses.replace(score.losses, test=test)
        return dataclasses.replace(score, test=1 - float(test.mean()), losses=losses)


class Blind(Faulty):
    def score(self, view, tasks):
        noise = np.random.default_rng(0).standard_normal(view.rows.shape)
        yield from super().score(view.with_rows(np.arange(len(noise)), noise), tasks)


class Peeking(Faulty):
    """Validation rows are centred by the mean of the test rows."""

    def score(self, view, tasks):
        rows = view.rows - view.rows[view.places("test")].mean(0)
        rows[view.places("train")] = view.rows[view.places("train")]
        yield from super().score(view.with_rows(np.arange(len(rows)), rows), tasks)


class Careless(Faulty):
    """It takes what is not finite for zero."""

    def score(self, view, tasks):
        rows = np.nan_to_num(view.rows, posinf=0.0)
        yield from super().score(view.with_rows(np.arange(len(rows)), rows), tasks)


class Strange(Faulty):
    def score(self, view, tasks):
        try:
            yield from super().score(view, tasks)
        except EstimatorError as error:
            raise ValueError(str(error)) from error


class Silent(Faulty):
    def score(self, view, tasks):
        return iter(())


class Idle(Faulty):
    def handles(self, task):
        return False


class Everywhere(Faulty):
    def handles(self, task):
        return task.kind in ("classes", "none")


class Measured(Faulty, Measure):
    """A sound measure, RankMe, under another name."""

    def __init__(self, seed=0):
        super().__init__(seed, RankMe)

    def definition(self, task):
        return self.sound.definition(task)


class Undeclared(Measured):
    def definition(self, task):
        return dataclasses.replace(self.sound.definition(task), invariances=frozenset())


class Overdeclared(Measured):
    def definition(self, task):
        definition = self.sound.definition(task)
        every = definition.invariances | {"translation"}
        return dataclasses.replace(definition, invariances=every)


class Uncited(Measured):
    def definition(self, task):
        return dataclasses.replace(self.sound.definition(task), citation="")


class Trained(Measured):
    def changed(self, score, view):
        return dataclasses.replace(score, n_train=400)


class Mixing(Measured):
    """Its value on test is that of validation rows too."""

    def changed(self, score, view):
        return dataclasses.replace(score, test=score.test + score.val)


class Uncertain(Measured):
    def changed(self, score, view):
        return dataclasses.replace(score, settings={})


class CountingRows(Measured):
    """Its standard error takes every row for independent."""

    def changed(self, score, view):
        return dataclasses.replace(score, stderr=score.test / score.n_test**0.5)


class Undefined(Measured):
    def definition(self, task):
        return self.sound.definitions[task]


class Undecided(Faulty):
    def handles(self, task):
        return task.nothing


class Demanding(Faulty):
    def __init__(self, seed, depth):
        super().__init__(seed)


class Bare:
    """It has only the method that matters most."""

    def __init__(self, seed=0):
        pass

    def score(self, view, tasks):
        return iter(())


@pytest.fixture
def found(monkeypatch):
    def check(kind):
        monkeypatch.setattr(estimators, "_items", {**dict(estimators.items()), "faulty": kind})
        return check_estimator("faulty")

    return check


@pytest.mark.parametrize("kind", [Faulty, Measured])
def test_a_sound_one_conforms(found, kind):
    assert found(kind) == []


@pytest.mark.parametrize(
    ("kind", "finding"),
    [
        (Nameless, "have the estimator 'ncm', not 'faulty'"),
        (Lossless, "without the loss of each row"),
        (Boastful, "By its losses top-1 is"),
        (Twofold, "are primary, not one of top-1"),
        (Negative, "± -"),
        (OutOfOrder, "rows are out of order"),
        (Ungrouped, "resample groups, not rows"),
        (Restless, "The same seed gives top-1"),
        (Blind, "On a layer that knows the answer"),
        (Peeking, "Other test rows change top-1 of val"),
        (Careless, "With a feature of nan in val it gives numbers"),
        (Strange, "With constant features it ends the whole run"),
        (Silent, "It fails on a sound layer: it gives no score."),
        (Idle, "It handles no task"),
        (Everywhere, "UNLABELLED"),
        (Undeclared, "does not declare to ignore rotation"),
        (Overdeclared, "declares to ignore translation, which makes"),
        (Uncited, "Its definition has no citation"),
        (Trained, "rankme has the n_train 400, not 0"),
        (Mixing, "Other validation rows change rankme of test"),
        (Uncertain, "does not have the definition's convention"),
        (CountingRows, "whether an image is a group or eight are: resample groups, not rows"),
        (Undefined, "It raises AttributeError: 'RankMe' object has no attribute 'definitions'"),
        (Undecided, "It raises AttributeError: 'Task' object has no attribute 'nothing'"),
        (Demanding, "It cannot be made from a seed: TypeError"),
        (Bare, "It has no name."),
        (Bare, "It has no handles."),
    ],
)
def test_a_fault_is_found(found, kind, finding):
    findings = found(kind)
    assert any(finding in one for one in findings), findings


@pytest.mark.parametrize(
    "name",
    [
        "logistic",
        "ridge",
        "ridge-classifier",
        "ncm",
        "lda",
        "knn",
        "sgd:barlow",
        "sklearn.svm.LinearSVC(C=0.1)",
        "sklearn.linear_model.Ridge",
        "sklearn.ensemble.ExtraTreesClassifier(n_estimators=20)",
    ],
)
def test_ours_conform(name):
    assert check_estimator(name) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp"])
def test_ours_that_are_trained_long_conform(name):
    assert check_estimator(name) == []


def test_a_layer_in_memory_has_parts_and_groups():
    layer = HeldLayer.of(np.eye(10), each=2, augmented=True, kind=np.arange(10))
    assert [len(layer.places(split)) for split in ("train", "val", "test")] == [6, 2, 2]
    assert layer.views("train").tolist() == [0, 1] * 3
    assert layer.instances("test").tolist() == [4, 4]
    assert layer.groups("val").tolist() == ["3", "3"]
    alone = dataclasses.replace(layer, augmented=False)
    assert alone.views("train").tolist() == [0] * 6
    assert alone.instances("test").tolist() == [8, 9]
    assert torch.from_numpy(layer.at(np.array([9, 0])).rows).argmax(1).tolist() == [9, 0]


def test_targets_for_other_rows_make_no_layer():
    with pytest.raises(SettingsError, match="'kind' has 9 targets for 10 rows"):
        HeldLayer.of(np.eye(10), kind=np.arange(9))


def test_a_planted_layer_is_the_same_every_time():
    one, other = planted_layer(2), planted_layer(2)
    assert np.array_equal(one.rows, other.rows)
    assert not np.array_equal(one.rows, planted_layer(2, seed=1).rows)
    assert planted_layer().rows.shape == (640, 12)


def run(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        app(["check", "estimator", *arguments])
    said = capsys.readouterr()
    return ended.value.code or 0, said.out, said.err


def test_the_command_takes_names_and_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimators, "_items", dict(estimators.items()))
    assert run(["ncm"], capsys)[:2] == (0, "ncm: conforms\n")
    (tmp_path / "mine.py").write_text(
        "from layerscope.estimators import estimators\n"
        "from tests.testing.test_check_estimator import Careless\n"
        "estimators.add('faulty', Careless)\n"
    )
    code, said, _ = run([str(tmp_path / "mine.py"), "--json"], capsys)
    (row,) = json.loads(said)
    assert (code, row["estimator"], len(row["findings"])) == (1, "faulty", 2)
    (tmp_path / "empty.py").write_text("x = 1\n")
    code, _, complaint = run([str(tmp_path / "empty.py")], capsys)
    assert code == 2
    assert "registers no estimator" in complaint
    code, _, complaint = run(["logistik"], capsys)
    assert code == 2
    assert "logistic" in complaint
