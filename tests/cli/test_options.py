"""Options: few in every help and under headings, compact forms, and the older forms of both."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from layerscope import registry
from layerscope.cli import settings
from layerscope.cli.checkpoint import KEYS
from layerscope.cli.main import app
from layerscope.cli.options import FEW
from layerscope.errors import LayerScopeError, SettingsError, UnknownNameError
from layerscope.models.declared import Declared

MOST = 16
"""So many options a command's help may show."""
CHECKPOINT = {
    "family": "moco",
    "arch": "nets:make",
    "head_from": "projector",
    "prefix_tokens": "0",
    "map_axes": "nhwc",
    "branch": "momentum",
    "head_act": "gelu",
    "trunk_act": "quick_gelu",
    "attention_heads": "6",
    "stem": "cifar",
    "image_size": "32",
    "width": "0.5",
    "batch_norm": "recalibrate",
    "trust": "argparse.Namespace,numpy.dtype",
}
OLD = {
    "layerscope": "0.1.0",
    "extract": {
        "data": ["toy=images"],
        "checkpoints": ["net.pth"],
        "table": None,
        "output": "features",
        "cuts": "-4:",
        "pooling": None,
        "batch_size": 32,
        "device": "cpu",
        "precision": "float32",
        "storage": "float16",
        "existing": "missing",
        "limit": 5,
        "views": 8,
        "augment": "simclr",
        "views_seed": 3,
        "loader": "threads",
        "workers": 2,
        "skip_bad_images": True,
        "stream": "statistics",
        "tasks": "toy-kind,toy-hue",
        "dry_run": False,
        "family": None,
        "arch": None,
        "head_from": None,
        "prefix_tokens": None,
        "map_axes": None,
        "branch": "momentum",
        "head_act": None,
        "trunk_act": None,
        "attention_heads": None,
        "stem": "cifar",
        "image_size": 32,
        "width": 0.5,
        "batch_norm": None,
        "trust": None,
        "as_json": False,
    },
}
"""What an extraction left beside its caches before options had compact forms."""


def commands(group, prefix=""):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


COMMANDS = dict(commands(get_command(app)))
DATA = ("net.pth", "--data", "toy=images")


def understood(name, *words, **context):
    return COMMANDS[name].make_context(name, list(words), **context).params


def shown(name):
    options = [it for it in COMMANDS[name].params if it.param_type_name == "option"]
    return [it for it in options if not it.hidden]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_few_options_and_many_of_them_under_headings(name):
    options = shown(name)
    assert len(options) <= MOST
    if len(options) > FEW:
        assert not [it.name for it in options if not it.rich_help_panel]
        help = CliRunner().invoke(app, [*name.split(), "--help"]).stdout
        assert {f"{it.rich_help_panel}:" for it in options} <= set(help.splitlines())


def test_everything_that_can_be_declared_has_a_key():
    assert set(KEYS) == {field.name for field in fields(Declared)} | {"trust"} == set(CHECKPOINT)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_says_what_the_older_option_said(key):
    value = CHECKPOINT[key]
    new = understood("cuts", "net.pth", "--declare", f"{key}={value}")
    assert new == understood("cuts", "net.pth", f"--{key.replace('_', '-')}", value)
    assert str(new[key]) == value
    assert new["declare"] is None


def test_several_keys_are_one_word_or_several():
    words = [f"{key}={value}" for key, value in CHECKPOINT.items()]
    one = understood("extract", *DATA, "--declare", ",".join(words))
    dashed = [word.replace("_", "-", 1) for word in words]
    assert one == understood("extract", *DATA, *(f"--declare={word}" for word in dashed))
    assert {key: str(one[key]) for key in KEYS} == CHECKPOINT


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (
            ("--views", "4,augment=simclr,seed=1"),
            ("--views", "4", "--augment", "simclr", "--views-seed", "1"),
        ),
        (("--loader", "ffcv,workers=8"), ("--loader", "ffcv", "--workers", "8")),
        (
            ("--device", "cuda:1,precision=bfloat16"),
            ("--device", "cuda:1", "--precision", "bfloat16"),
        ),
        (
            ("--stream", "statistics,tasks=a-kind,b*"),
            ("--stream", "statistics", "--tasks", "a-kind,b*"),
        ),
    ],
)
def test_a_compact_option_says_what_several_said(new, old):
    assert understood("extract", *DATA, *new) == understood("extract", *DATA, *old)
    assert understood("extract", *DATA, *new) != understood("extract", *DATA)


@pytest.mark.parametrize(
    ("words", "error", "told", "hint"),
    [
        (("--declare", "stm=cifar"), UnknownNameError, "'stm'", "Nearest: stem, "),
        (("--declare", "stem=cifr"), SettingsError, "stem=cifr cannot", "'stl10'"),
        (("--declare", "image_size=0"), SettingsError, "image_size=0 cannot", "1"),
        (("--declare", "width=wide"), SettingsError, "width=wide cannot", "number"),
        (("--declare", "stem"), SettingsError, "'stem' says nothing", "stem=cifar"),
        (
            ("--declare", "stem=cifar", "--stem", "imagenet"),
            SettingsError,
            "--stem imagenet and --declare stem=cifar contradict each other",
            "Leave --stem out",
        ),
        (
            ("--declare", "stem=cifar", "--declare", "stem=imagenet"),
            SettingsError,
            "both stem=cifar and stem=imagenet",
            "Leave one",
        ),
    ],
)
def test_what_cannot_be_declared_is_told_with_what_can(words, error, told, hint):
    with pytest.raises(error) as caught:
        understood("cuts", "net.pth", *words)
    assert told in caught.value.message
    assert hint in caught.value.hint
    assert CliRunner().invoke(app, ["cuts", "net.pth", *words]).exit_code == 2


def test_both_forms_may_say_the_same():
    words = ("--declare", "stem=cifar", "--stem", "cifar")
    assert understood("cuts", "net.pth", *words)["stem"] == "cifar"


def test_what_can_be_kept_and_seen_instead_is_said():
    run = CliRunner().invoke
    done = run(app, ["extract", *DATA, "--stream", "sums"])
    assert (done.exit_code, "--stream 'sums' names nothing" in done.stderr) == (2, True)
    done = run(app, ["extract", *DATA, "--views", "simclr"])
    assert (done.exit_code, "--views simclr does not say how many" in done.stderr) == (2, True)


def test_settings_of_an_older_run_are_taken_back_and_keep_their_keys(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(OLD))
    again = understood("extract", default_map=settings.read(path)["extract"])
    settings.write(path, "extract", again)
    written = json.loads(path.read_text())["extract"]
    assert {name: written[name] for name in OLD["extract"]} == OLD["extract"]
    assert set(written) - set(OLD["extract"]) == {"declare", "baselines"}
    assert understood("extract", default_map=settings.read(path)["extract"]) == again


def test_the_command_line_goes_before_settings_key_by_key():
    words = ("--declare", "stem=imagenet", "--views", "2,seed=0")
    found = understood("extract", *words, default_map=OLD["extract"])
    told = {name: found[name] for name in ("stem", "image_size", "views", "augment", "views_seed")}
    assert told == {
        "stem": "imagenet",
        "image_size": 32,
        "views": 2,
        "augment": "simclr",
        "views_seed": 0,
    }


@pytest.fixture
def plugins(monkeypatch):
    loaded = []
    monkeypatch.setattr(registry, "load_plugin", lambda path: loaded.append(str(path)))
    return loaded


@pytest.mark.parametrize(
    "words",
    [
        ("--plugin", "a.py", "--plugin=b.py", "list", "methods"),
        ("list", "--plugin", "a.py", "methods", "--plugin=b.py"),
        ("--plugin", "a.py", "list", "methods", "--plugin", "b.py"),
    ],
)
def test_plugins_stand_before_or_behind_the_command(plugins, words):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert plugins == ["a.py", "b.py"]


def test_a_plugin_of_a_submitted_command_is_that_of_its_job(plugins):
    words = ("submit", "--dry-run", "--json", "probe", "--tasks", "mine", "--plugin", "mine.py")
    (row,) = json.loads(CliRunner().invoke(app, words).stdout)["jobs"]
    assert row["command"][1:] == ["--plugin", "mine.py", "probe", "--tasks", "mine"]


def test_words_behind_a_double_dash_are_no_plugins(plugins):
    assert CliRunner().invoke(app, ["cuts", "--", "--plugin", "a.py"]).exit_code == 2
    assert not plugins


def test_a_plugin_that_does_not_load_is_an_error_and_no_crash(tmp_path, monkeypatch):
    run = CliRunner().invoke
    done = run(app, ["list", "sources", "--plugin", str(tmp_path / "gone.py")])
    assert (done.exit_code, "is not a Python file" in done.stderr) == (2, True)
    done = run(app, ["list", "sources", "--plugin"])
    assert (done.exit_code, "--plugin needs the path" in done.stderr) == (2, True)

    def refuse(path):
        raise LayerScopeError("It does not load.", hint="Mend it.")

    monkeypatch.setattr(registry, "load_plugin", refuse)
    done = run(app, ["list", "sources", "--plugin", "broken.py"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "Error: It does not load.\nHint: Mend it.\n"
