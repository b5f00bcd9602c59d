import json
import zipfile

import pytest

from layerscope.cli import demo
from layerscope.cli.main import app
from layerscope.data import open_source
from layerscope.errors import LayerScopeError, RenderError, SettingsError
from layerscope.models import card_names


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "objects3d"
    demo._unpack(demo.kept_set(), folder)
    return folder


def test_the_kept_set_is_what_the_demo_would_render(unpacked):
    settings = json.loads((unpacked / "dataset.json").read_text())["settings"]
    assert (settings["objects"], settings["views"], settings["seed"]) == (
        demo.OBJECTS,
        demo.VIEWS,
        demo.SEED,
    )
    source = open_source("objects3d", unpacked)
    assert len(source.ids) == demo.OBJECTS * demo.VIEWS


def test_the_kept_set_is_small_and_holds_images_only():
    assert demo.kept_set().stat().st_size < 10_000_000
    with zipfile.ZipFile(demo.kept_set()) as archive:
        kinds = {name.rpartition(".")[2] for name in archive.namelist()}
    assert kinds == {"jpg", "csv", "json"}


def test_every_checkpoint_of_the_demo_has_a_card():
    assert set(demo.CHECKPOINTS) <= set(card_names())


def test_a_renderer_that_does_not_load_is_said_aloud(monkeypatch, capsys):
    class Broken:
        def version(self):
            raise RenderError("libatomic.so.1 is missing.", hint="Install it.")

    class Shelf:
        def __getitem__(self, name):
            return Broken

    monkeypatch.setattr("layerscope.render.renderers", Shelf())
    assert not demo._renderer_works()
    talk = capsys.readouterr().err
    assert "libatomic.so.1 is missing. Install it." in talk
    assert "takes the set kept with LayerScope" in talk


def test_without_renderer_and_kept_set_the_demo_says_what_to_do(tmp_path):
    with pytest.raises(SettingsError, match="is not there either") as error:
        demo._unpack(tmp_path / "objects3d.zip", tmp_path / "data")
    assert "pip install" in error.value.hint


def test_a_step_that_fails_ends_the_demo_with_its_own_code(tmp_path, capsys):
    with pytest.raises(LayerScopeError, match="stopped at `layerscope probe`") as error:
        demo.run(app, ["probe", str(tmp_path / "nothing")])
    assert error.value.exit_code == 2
    assert "There is no file or folder" in capsys.readouterr().err
