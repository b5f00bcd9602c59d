"""A cache gives back what was written, and refuses everything that is not one."""

import json
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import layerscope
from layerscope.cache import CacheWriter, find_caches, open_cache
from layerscope.cache.label import write_label, write_seal
from layerscope.errors import CacheError, UnknownNameError
from layerscope.types import SPLITS, FeatureCache, LayerView

DOCS = Path(layerscope.__file__).parents[1] / "docs" / "cache-format.md"


def test_every_split_of_every_cut_comes_back_in_source_order(complete, header, features):
    source = header.source
    with open_cache(complete) as cache:
        for cut in header.cuts:
            view = cache.view(cut.name)
            for split in SPLITS:
                rows = np.flatnonzero(source.splits == split)
                np.testing.assert_array_equal(view.features(split), features[cut.key][rows])
                np.testing.assert_array_equal(view.groups(split), source.groups[rows])
                np.testing.assert_array_equal(view.ids(split), np.array(source.ids)[rows])
                for task in source.tasks:
                    expected = source.targets[task.name][rows]
                    np.testing.assert_array_equal(view.target(task.name, split), expected)


def test_types_are_those_that_estimators_were_promised(complete):
    with open_cache(complete) as cache:
        view = cache.view("trunk")
        assert view.features("train").dtype == np.float32
        assert view.target("toy-kind", "train").dtype == np.int64
        assert view.target("toy-pose", "train").dtype == np.float64
        assert isinstance(cache, FeatureCache)
        assert isinstance(view, LayerView)


def test_nouns_come_back_equal(complete, header):
    with open_cache(complete) as cache:
        assert cache.cuts == header.cuts
        assert cache.tasks == header.source.tasks
        assert cache.fingerprint == header.fingerprint
        assert cache.complete
        assert (cache.checkpoint, cache.source, cache.limit) == ("net", "toy", None)
        assert cache.card.preprocessing == header.checkpoint.preprocessing
        assert cache.computation == {"device": "cpu"}


def test_where_the_maker_kept_the_weights_stays_private(complete):
    with open_cache(complete) as cache:
        assert cache.card.weights == Path("net.pt")
    assert b"secret" not in complete.read_bytes()


@pytest.mark.parametrize("gap", [0, 10, 2**15])
def test_scattered_rows_are_read_right_across_blocks(complete, features, monkeypatch, gap):
    from layerscope.cache import features as module

    monkeypatch.setattr(module, "_BLOCK_BYTES", 40)
    monkeypatch.setattr(module, "_GAP_BYTES", gap)
    with open_cache(complete) as cache:
        rows = cache.rows_of("val")
        np.testing.assert_array_equal(
            cache.view("trunk").features("val"), features["trunk@mean"][rows]
        )


def test_unreadable_images_are_left_out_everywhere(tmp_path, header, features):
    valid = np.ones(header.rows, dtype=bool)
    valid[[0, 3, 5]] = False
    spoilt = {name: np.where(valid[:, None], rows, np.nan) for name, rows in features.items()}
    with CacheWriter(tmp_path / "a.h5", header) as writer:
        writer.write(writer.missing, spoilt, valid)
        writer.finish()
    with open_cache(tmp_path / "a.h5") as cache:
        view = cache.view("head.1")
        rows = [6, 9, 12, 15, 18]
        np.testing.assert_array_equal(view.features("train"), features["head.1@none"][rows])
        np.testing.assert_array_equal(view.target("toy-kind", "train"), np.array(rows) % 2)
        assert list(view.groups("train")) == [f"object{row // 2}" for row in rows]
        assert sum(len(view.ids(split)) for split in SPLITS) == header.rows - 3


def test_a_split_without_rows_is_empty_rather_than_an_error(tmp_path, headers, fill):
    header = headers(rows=2)
    with CacheWriter(tmp_path / "a.h5", header) as writer:
        fill(writer, 2)
        writer.finish()
    with open_cache(tmp_path / "a.h5") as cache:
        assert cache.view("trunk").features("test").shape == (0, 5)


def test_a_part_is_never_accepted_under_any_name(tmp_path, header, fill):
    with CacheWriter(tmp_path / "a.h5", header) as writer:
        fill(writer, header.rows)  # all rows, never finished
    part = tmp_path / "a.h5.part"
    with pytest.raises(CacheError, match="incomplete") as caught:
        open_cache(part)
    assert "layerscope extract" in caught.value.hint
    renamed = part.rename(tmp_path / "a.h5")
    with pytest.raises(CacheError, match="incomplete: 21 rows are written"):
        open_cache(renamed)


def test_a_truncated_file_is_refused(complete):
    complete.write_bytes(complete.read_bytes()[:-64])
    with pytest.raises(CacheError, match="damaged or cut short") as caught:
        open_cache(complete)
    assert "copy it again" in caught.value.hint


def test_other_files_are_refused_by_what_they_are(tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(CacheError, match="cannot be read"):
        open_cache(tmp_path / "text.h5")
    with pytest.raises(CacheError, match="schema None"):
        open_cache(tmp_path / "other.h5")
    with pytest.raises(CacheError, match="There is no cache"):
        open_cache(tmp_path / "none.h5")


@pytest.mark.parametrize("name", ["features/trunk@mean", "rows/group", "targets/toy-pose"])
def test_a_missing_dataset_is_named(complete, name):
    with h5py.File(complete, "r+") as file:
        del file[name]
    write_label(complete)
    write_seal(complete)
    with pytest.raises(CacheError, match=name.split("/")[1]):
        open_cache(complete)


def test_a_cache_of_a_later_schema_is_refused(complete):
    with h5py.File(complete, "r+") as file:
        file.attrs["schema"] = "layerscope-cache/99"
    write_label(complete)
    with pytest.raises(CacheError, match="layerscope-cache/99"):
        open_cache(complete)


def test_a_task_with_splits_of_its_own_has_its_rows(tmp_path, header, fill):
    codes = np.int8([0, 1, 2, -1, 2, 0, 1])[np.arange(header.rows) % 7]
    source = replace(header.source, task_splits={"toy-kind": codes})
    whole = replace(header, source=source)
    with CacheWriter(tmp_path / "own.h5", whole) as writer:
        fill(writer, whole.rows)
        writer.finish()
    with open_cache(tmp_path / "own.h5") as cache:
        assert cache.own_splits == {"toy-kind"}
        own = cache.view("trunk", task="toy-kind")
        for place, split in enumerate(SPLITS):
            rows = np.flatnonzero(codes == place)
            np.testing.assert_array_equal(own.features(split)[:, 0], 512 + 8 * rows)
            assert own.ids(split).tolist() == [source.ids[row] for row in rows]
            np.testing.assert_array_equal(own.target("toy-kind", split), rows % 2)
            assert len(own.groups(split)) == len(rows)
        usual = cache.view("trunk", task="toy-pose")
        assert len(usual.features("train")) == (source.splits == "train").sum()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_cache_of_an_older_schema_is_to_be_extracted_again(complete, number):
    with h5py.File(complete, "w") as file:
        file.attrs["schema"] = f"layerscope-cache/{number}"
    with pytest.raises(CacheError, match=f"older schema 'layerscope-cache/{number}'") as caught:
        open_cache(complete)
    assert "Extract the features again" in caught.value.hint


def test_unknown_layers_and_tasks_show_the_nearest(complete):
    with open_cache(complete) as cache:
        with pytest.raises(UnknownNameError) as caught:
            cache.view("layer1")
        assert caught.value.near[0] == "layer1.0"
        with pytest.raises(UnknownNameError) as caught:
            cache.view("trunk").target("toy-poses", "train")
        assert caught.value.near[0] == "toy-pose"


def test_a_cut_in_several_poolings_has_to_be_named_with_one(tmp_path, header, features):
    other = replace(header.cuts[1], pooling="max", width=2)
    maxima = np.arange(2 * header.rows, dtype=np.float32).reshape(-1, 2)
    with CacheWriter(tmp_path / "a.h5", replace(header, cuts=(*header.cuts, other))) as writer:
        writer.write(
            writer.missing, features | {other.key: maxima}, np.ones(header.rows, dtype=bool)
        )
        writer.finish()
    with open_cache(tmp_path / "a.h5") as cache:
        rows = cache.rows_of("test")
        np.testing.assert_array_equal(cache.view("trunk", "max").features("test"), maxima[rows])
        np.testing.assert_array_equal(
            cache.view("trunk", "mean").features("test"), features["trunk@mean"][rows]
        )
        assert cache.view("head.1").cut == header.cuts[2]
        with pytest.raises(CacheError, match="trunk in several poolings: mean, max") as caught:
            cache.view("trunk")
        assert 'view("trunk", "mean")' in caught.value.hint
        with pytest.raises(UnknownNameError, match="no pooling of trunk called 'cls'"):
            cache.view("trunk", "cls")


def test_caches_are_found_by_file_or_folder(complete, tmp_path):
    (tmp_path / "b@toy.h5.part").touch()
    assert find_caches(tmp_path) == [complete]
    assert find_caches(complete) == [complete]


def test_a_folder_without_a_finished_cache_says_what_is_there(tmp_path):
    with pytest.raises(CacheError, match="holds no cache"):
        find_caches(tmp_path)
    (tmp_path / "b@toy.h5.part").touch()
    with pytest.raises(CacheError, match=r"only unfinished caches: b@toy\.h5\.part") as caught:
        find_caches(tmp_path)
    assert "Repeat" in caught.value.hint
    with pytest.raises(CacheError, match="no file or folder"):
        find_caches(tmp_path / "nowhere")


def test_the_documentation_reads_a_cache_with_plain_h5py(complete, header, features):
    snippet, with_layerscope = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    train = np.flatnonzero(header.source.splits == "train")
    for code in (snippet, with_layerscope):
        code = code.replace("layer4.1", "trunk").replace("objects3d-rotation", "toy-pose")
        found = {"path": complete}
        exec(code, found)
        np.testing.assert_array_equal(found["features"], features["trunk@mean"][train])
        np.testing.assert_array_equal(found["angles"], header.source.targets["toy-pose"][train])
    assert len(snippet.strip().splitlines()) <= 6


def test_the_documentation_names_every_attribute(complete):
    text = DOCS.read_text()
    with h5py.File(complete) as file:
        assert [name for name in file.attrs if f"`{name}`" not in text] == []
        json.loads(file.attrs["cuts"])
