"""The rendered set is read as it was written, and nothing inconsistent is let through."""

import json
import math

import numpy as np
import pytest
import torch

from layerscope.data import open_source
from layerscope.data.tasks import objects3d
from layerscope.errors import SourceError
from layerscope.render import RenderSettings
from layerscope.render.catalogue import catalogue
from layerscope.render.table import as_csv
from layerscope.render.table import table as rendered_table
from layerscope.rendered_set import LATENTS
from layerscope.stats.rotation import quaternion_from_euler


def opened(folder):
    return open_source("objects3d", folder)


def test_rows_come_in_the_files_order_with_their_targets(folder, rows):
    source = opened(folder)
    assert list(source.ids) == [row["image"] for row in rows]
    assert list(source.splits) == [row["split"] for row in rows]
    assert list(source.groups) == [row["object"] for row in rows]
    rotation = source.targets["objects3d-rotation"]
    assert rotation.dtype == np.float64
    assert rotation.tolist() == [
        [float(row[name]) for name in ("yaw", "pitch", "roll")] for row in rows
    ]
    phi = source.targets["objects3d-spot-phi"]
    assert phi.tolist() == [[float(row["spot_phi"])] for row in rows]


def test_categories_are_classes_in_alphabetical_order(folder, rows):
    source = opened(folder)
    task = next(task for task in source.tasks if task.kind == "classes")
    target = source.targets[task.name]
    assert task.classes == ("cup", "mug")
    assert target.dtype == np.int64
    assert [task.classes[label] for label in target] == [row["category"] for row in rows]


def test_every_task_has_its_target_and_its_scoring(folder):
    source = opened(folder)
    assert {task.name for task in source.tasks} == set(source.targets)
    known = {task.name: (task.encoding, task.period, task.metric) for task in source.tasks}
    assert known == {
        "objects3d-rotation": ("quaternion", None, "mse"),
        "objects3d-floor-hue": ("circular", 1.0, "mse"),
        "objects3d-spot-theta": ("raw", None, "mse"),
        "objects3d-spot-phi": ("circular", 2 * math.pi, "mse"),
        "objects3d-spot-hue": ("circular", 1.0, "mse"),
        "objects3d-category": (None, None, "top-1"),
    }
    assert [task.title for task in source.tasks][:4] == [
        "Object rotation",
        "Floor hue",
        "Spot θ",
        "Spot φ",
    ]


def test_what_is_rendered_is_read(folder):
    settings = RenderSettings(objects=6, views=2)
    rows = rendered_table(catalogue(settings), settings)
    (folder / "latents.csv").write_bytes(as_csv(rows))
    for row in rows:
        (folder / row.image).parent.mkdir(parents=True, exist_ok=True)
        (folder / row.image).write_bytes(b"x")
    source = opened(folder)
    assert list(source.ids) == [row.image for row in rows]
    assert list(source.splits) == [row.split for row in rows]
    found = np.concatenate([source.targets[task.name] for task in objects3d.COLUMNS], axis=1)
    assert found.tolist() == [list(row.latents.values()) for row in rows]


def test_within_the_accepted_range_a_pose_has_one_quaternion():
    low, high, _ = LATENTS["yaw"]
    corners = torch.cartesian_prod(*[torch.linspace(low, high, 9, dtype=torch.float64)] * 3)
    assert quaternion_from_euler(corners)[:, 3].min() > -1e-12


def hashes(source):
    return source.manifest, source.annotations


def test_the_manifest_follows_contents_and_not_the_place(folder, rows, table, tmp_path_factory):
    first = opened(folder)
    moved = folder.rename(tmp_path_factory.mktemp("moved") / "set")
    assert hashes(opened(moved)) == hashes(first)
    image = moved / rows[0]["image"]
    image.write_bytes(image.read_bytes() + b"\0")
    grown = opened(moved)
    assert grown.manifest != first.manifest
    assert grown.annotations == first.annotations
    rows[0]["yaw"] = "0.25"
    table(moved, rows)
    turned = opened(moved)
    assert turned.manifest == grown.manifest
    assert turned.annotations != grown.annotations
    table(moved, rows[::-1])
    assert not set(hashes(opened(moved))) & set(hashes(turned))


WRONG_CELLS = [
    ("yaw", "1.6", "has yaw 1.6, outside"),
    ("spot_theta", "-0.1", "has spot_theta -0.1, outside"),
    ("floor_hue", "nan", "has floor_hue nan, outside"),
    ("spot_phi", "inf", "has spot_phi inf, outside"),
    ("spot_hue", "red", "has spot_hue 'red', which is no number"),
    ("split", "dev", "has the split 'dev', not train, val, test"),
    ("category", "", "has no category"),
    ("image", "images/mug-0/000.jpg", "repeats the image 'images/mug-0/000.jpg' of line 2"),
    ("split", "val", "puts the object 'mug-0' into val, line 2 into train"),
]


@pytest.mark.parametrize(("column", "cell", "message"), WRONG_CELLS)
def test_a_wrong_cell_is_named_with_file_and_line(folder, rows, table, column, cell, message):
    rows[2][column] = cell
    table(folder, rows)
    with pytest.raises(SourceError) as caught:
        opened(folder)
    assert message in caught.value.message
    assert "latents.csv', line 4," in caught.value.message
    assert caught.value.hint


def test_an_image_that_is_listed_and_not_there_is_named(folder, rows, table):
    rows[2]["image"] = "images/gone.jpg"
    table(folder, rows)
    with pytest.raises(SourceError, match=r"'images/gone\.jpg' .* the file is not there\."):
        opened(folder)
    source = open_source("objects3d", folder, allow_missing=True)
    assert source.missing == {2: "the file is not there"}


def test_a_value_on_the_edge_of_its_range_is_accepted(folder, rows, table):
    rows[0] |= {"yaw": "1.570796", "spot_phi": "6.283186", "floor_hue": "1.000000"}
    table(folder, rows)
    assert opened(folder).targets["objects3d-spot-phi"][0, 0] == 6.283186


def test_a_missing_column_is_refused_with_the_columns_that_must_be(folder, rows, table):
    table(folder, rows, header="image,object,category,yaw,pitch,roll,split")
    with pytest.raises(SourceError, match="has the columns image,object") as caught:
        opened(folder)
    assert "spot_theta" in caught.value.hint


def test_a_line_that_broke_off_is_named(folder):
    table = folder / "latents.csv"
    table.write_text(table.read_text().rstrip()[:-20])
    with pytest.raises(SourceError, match="line 13, has 10 values for 11 columns"):
        opened(folder)


def test_a_table_that_is_no_text_or_quotes_wrongly_is_named(folder):
    table = folder / "latents.csv"
    text = table.read_bytes()
    table.write_bytes(text.replace(b"mug", b"m\xfcg"))
    with pytest.raises(SourceError, match="is not UTF-8 text"):
        opened(folder)
    table.write_bytes(text.replace(b",mug,", b',"mug,', 1))
    with pytest.raises(SourceError, match=r"latents\.csv', line 2, is broken"):
        opened(folder)


def test_an_incomplete_set_is_refused(folder):
    for text in ('{"complete": false}', "{}", "[]"):
        (folder / "dataset.json").write_text(text)
        with pytest.raises(SourceError, match="is incomplete") as caught:
            opened(folder)
        assert "Repeat the layerscope render" in caught.value.hint
    (folder / "dataset.json").write_text('{"complete"')
    with pytest.raises(SourceError, match="is not JSON"):
        opened(folder)


def test_missing_pieces_are_named(folder, tmp_path, table):
    with pytest.raises(SourceError, match="There is no folder"):
        opened(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"has no latents\.csv"):
        opened(tmp_path / "empty")
    table(folder, [])
    with pytest.raises(SourceError, match="lists no image"):
        opened(folder)
    (folder / "latents.csv").write_text("")
    with pytest.raises(SourceError, match=r"has the columns \(none\)"):
        opened(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(SourceError, match=r"has no dataset\.json"):
        opened(folder)


def test_more_in_the_card_than_is_known_here_does_no_harm(folder):
    (folder / "dataset.json").write_text(json.dumps({"complete": True, "renderer": "x"}))
    assert len(opened(folder).ids) == 12
