"""The settings of a verb: one frozen object, checked when it is made, the same from every door."""

from dataclasses import FrozenInstanceError, replace

import pytest

import layerscope
from layerscope.errors import SettingsError
from layerscope.extraction.settings import EvaluateSettings, ExtractSettings
from tests.extraction.test_extract import extract_as_asked, model, plan_as_asked, source

__all__ = ["model", "source"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"storage": "int8"}, "storage is 'int8'"),
        ({"existing": "overwrite"}, "existing is 'overwrite'"),
        ({"stream": "tokens"}, "stream is 'tokens'"),
        ({"tasks": ["a", "b"]}, "--tasks 'a,b' says whose statistics to keep"),
    ],
)
def test_what_means_nothing_is_refused_when_it_is_made(wrong, message):
    with pytest.raises(SettingsError, match=message):
        ExtractSettings(**wrong)
    with pytest.raises(SettingsError, match=message):
        replace(ExtractSettings(), **wrong)


def test_evaluation_is_checked_alike():
    with pytest.raises(SettingsError, match="batch_size is -2"):
        EvaluateSettings(batch_size=-2)


def test_settings_are_frozen_and_at_the_root():
    settings = layerscope.ExtractSettings(batch_size=3)
    assert settings == ExtractSettings(batch_size=3)
    with pytest.raises(FrozenInstanceError):
        settings.batch_size = 4


def test_keywords_and_settings_make_the_same_job(model, source, tmp_path):
    given = {"batch_size": 5, "storage": "float32", "device": "cpu", "limit": 9, "series": {"a": 1}}
    words = plan_as_asked(model, source, tmp_path, **given)
    made = layerscope.plan_extraction(model, source, tmp_path, ExtractSettings(**given))
    assert words.settings == made.settings
    assert words.header.fingerprint == made.header.fingerprint
    assert (words.path, words.bytes, words.series) == (made.path, made.bytes, {"a": 1})
    both = plan_as_asked(model, source, tmp_path, made.settings, batch_size=7)
    assert both.settings == replace(made.settings, batch_size=7)


def test_a_planned_job_runs_as_extract_does(model, source, tmp_path):
    settings = ExtractSettings(device="cpu", batch_size=4)
    job = plan_as_asked(model, source, tmp_path / "planned", settings)
    assert not (tmp_path / "planned").exists()
    stored = []
    report = job.run(lambda rows, note="": stored.append(rows))
    assert sum(stored) == job.remaining == report.rows
    assert extract_as_asked(model, source, tmp_path / "planned", settings).status == "there"
    assert job.with_present_status().cache_status.state == "there"


def test_an_unknown_option_is_an_error(model, source, tmp_path):
    with pytest.raises(TypeError, match="batchsize"):
        extract_as_asked(model, source, tmp_path, batchsize=3)
