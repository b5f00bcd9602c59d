"""Tables with a card, in CSV and Parquet, read once more by plain Python."""

import csv
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from layerscope.data import open_source, select_tasks
from layerscope.errors import SourceError, UnknownNameError

CARD = """
table = "labels.csv"
image = "path"
root = "images"
split = "part"
group = "patient"
[tasks.grade]
kind = "classes"
classes = ["low", "high", "none"]
[tasks.site]
kind = "classes"
column = "hospital"
[tasks.findings]
kind = "multilabel"
separator = "|"
none = "normal"
[tasks.flags]
kind = "multilabel"
columns = ["edema", "mass"]
[tasks.age]
kind = "continuous"
column = "age_years"
unit = "years"
title = "Age"
[tasks.heading]
kind = "continuous"
period = 360
unit = "deg"
[tasks.position]
kind = "continuous"
columns = ["x", "y"]
"""
HEADER = [
    "path",
    "part",
    "patient",
    "grade",
    "hospital",
    "findings",
    "edema",
    "mass",
    "age_years",
    "heading",
    "x",
    "y",
    "comment",
]
PARTS = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3


def lines():
    generator = np.random.default_rng(3)
    rows = []
    for i, part in enumerate(PARTS):
        findings = [word for word in ("mass", "edema", "cyst") if generator.random() < 0.5]
        x, y, age, heading = generator.uniform(0, 100, 4).round(4).tolist()
        rows.append(
            {
                "path": f"{'ab'[i % 2]}/{i}.png",
                "part": part,
                "patient": f"p{i // 3}",
                "grade": ("high", "low")[i % 2],
                "hospital": str((10, 2, 9)[i % 3]),
                "findings": "|".join(findings) or "normal",
                "edema": str(int("edema" in findings)),
                "mass": str(int("mass" in findings)),
                "age_years": str(age),
                "heading": str(3.6 * heading),
                "x": str(x),
                "y": str(-y),
                "comment": 'a "quoted", long\ncomment' if i == 4 else "",
            }
        )
    return rows


def write(root, rows, header=HEADER, name="labels.csv", delimiter=","):
    with (root / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, header, delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def root(tmp_path):
    for i, row in enumerate(lines()):
        path = tmp_path / "images" / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(path)
    write(tmp_path, lines())
    (tmp_path / "card.toml").write_text(CARD)
    return tmp_path


def opened(root, card=None):
    if card is not None:
        (root / "card.toml").write_text(card)
    return open_source("table", root / "card.toml")


def task_of(source, name):
    return next(task for task in source.tasks if task.name == name)


def read_again(root):
    with (root / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_targets_splits_and_groups_are_the_tables(root):
    source, rows = opened(root), read_again(root)
    assert list(source.ids) == [row["path"] for row in rows]
    assert source.root == root / "images"
    assert source.splits.tolist() == [row["part"].replace("validation", "val") for row in rows]
    assert source.groups.tolist() == [row["patient"] for row in rows]
    assert source.name == "table"
    assert list(source.targets) == [task.name for task in source.tasks]
    grades = task_of(source, "table-grade")
    assert grades.classes == ("low", "high", "none")
    named = [grades.classes[label] for label in source.targets["table-grade"]]
    assert named == [row["grade"] for row in rows]
    sites = task_of(source, "table-site")
    assert sites.classes == ("2", "9", "10")
    named = [sites.classes[label] for label in source.targets["table-site"]]
    assert named == [row["hospital"] for row in rows]
    findings = task_of(source, "table-findings")
    assert findings.classes == ("cyst", "edema", "mass")
    for row, labels in zip(rows, source.targets["table-findings"], strict=True):
        words = {findings.classes[place] for place in np.flatnonzero(labels)}
        assert words == {*row["findings"].split("|")} - {"normal"}
    flags = [[int(row["edema"]), int(row["mass"])] for row in rows]
    assert source.targets["table-flags"].tolist() == flags
    assert task_of(source, "table-flags").classes == ("edema", "mass")
    for name, columns in (
        ("age", ["age_years"]),
        ("heading", ["heading"]),
        ("position", ["x", "y"]),
    ):
        values = [[float(row[column]) for column in columns] for row in rows]
        assert source.targets[f"table-{name}"].tolist() == values
    assert source.notes == ()


def test_a_task_is_what_its_section_says(root):
    known = {
        task.name: (task.kind, task.metric, task.encoding, task.period, task.unit, task.title)
        for task in opened(root).tasks
    }
    assert known == {
        "table-grade": ("classes", "top-1", None, None, "", "grade"),
        "table-site": ("classes", "top-1", None, None, "", "site"),
        "table-findings": ("multilabel", "mse", None, None, "", "findings"),
        "table-flags": ("multilabel", "mse", None, None, "", "flags"),
        "table-age": ("latents", "mse", "raw", None, "years", "Age"),
        "table-heading": ("latents", "mse", "circular", 360.0, "deg", "heading"),
        "table-position": ("latents", "mse", "raw", None, "", "position"),
    }
    directions = {task.kind: task.direction for task in opened(root).tasks}
    assert directions == {"classes": "maximise", "multilabel": "minimise", "latents": "minimise"}


def test_a_name_tells_two_tables_apart(root):
    source = opened(root, 'name = "scans"\n' + CARD)
    assert source.name == "scans"
    assert select_tasks("scans-age", source.tasks)[0].source == "scans"
    with pytest.raises(SourceError, match="'objects3d' is that of another"):
        opened(root, 'name = "objects3d"\n' + CARD)


@pytest.mark.parametrize(("name", "delimiter"), [("labels.tsv", "\t"), ("labels.csv", ";")])
def test_other_text_tables_say_the_same(root, name, delimiter):
    first = opened(root)
    write(root, lines(), name=name, delimiter=delimiter)
    card = CARD.replace("labels.csv", name)
    if delimiter == ";":
        with pytest.raises(SourceError, match="line 6, has 2 cells for 1 columns") as caught:
            opened(root, card)
        assert "delimiter" in caught.value.hint
        card = 'delimiter = ";"\n' + card
    second = opened(root, card)
    assert (second.manifest, second.annotations) == (first.manifest, first.annotations)


def as_parquet(root, change=lambda columns: columns):
    """Write the same table, typed as data frames are, and the card for it."""
    arrow = pytest.importorskip("pyarrow", reason="needs the tables extra")
    from pyarrow import parquet

    rows = read_again(root)
    columns = {name: [row[name] for row in rows] for name in HEADER}
    typed = {
        "hospital": arrow.array([int(it) for it in columns["hospital"]], arrow.int16()),
        "grade": arrow.array(columns["grade"]).dictionary_encode(),
        "edema": arrow.array([it == "1" for it in columns["edema"]]),
        "mass": arrow.array([float(it) for it in columns["mass"]], arrow.float32()),
        "findings": arrow.array(
            [[w for w in it.split("|") if w != "normal"] for it in columns["findings"]]
        ),
    }
    for name in ("age_years", "heading", "x", "y"):
        typed[name] = arrow.array([float(it) for it in columns[name]], arrow.float64())
    parquet.write_table(arrow.table(change(columns | typed)), root / "labels.parquet")
    card = CARD.replace("labels.csv", "labels.parquet").replace('separator = "|"\n', "")
    return card


def test_parquet_says_the_same_as_text(root):
    first, second = opened(root), opened(root, as_parquet(root))
    assert (second.manifest, second.annotations) == (first.manifest, first.annotations)
    assert [task.classes for task in second.tasks] == [task.classes for task in first.tasks]


CLASS_TYPES = ["int8", "uint64", "string", "large_string", "dictionary", "bool"]


@pytest.mark.parametrize("kind", CLASS_TYPES)
def test_classes_in_parquet_may_be_of_every_type_that_names_something(root, kind):
    arrow = pytest.importorskip("pyarrow", reason="needs the tables extra")
    codes = [i % 2 for i in range(12)]
    made = {
        "string": lambda: arrow.array([f"g{it}" for it in codes]),
        "large_string": lambda: arrow.array([f"g{it}" for it in codes], arrow.large_string()),
        "dictionary": lambda: arrow.DictionaryArray.from_arrays(codes, ["zebra", "ant"]),
        "bool": lambda: arrow.array([it == 1 for it in codes]),
    }
    column = made.get(kind, lambda: arrow.array(codes, getattr(arrow, kind)()))()
    card = as_parquet(root, lambda columns: columns | {"grade": column})
    source = opened(root, card.replace('classes = ["low", "high", "none"]\n', ""))
    classes = task_of(source, "table-grade").classes
    words = [classes[label] for label in source.targets["table-grade"]]
    assert words == [str(it) for it in column.to_pylist()]
    assert classes == tuple(sorted(set(words)))


def test_parquet_that_holds_no_words_is_refused(root):
    arrow = pytest.importorskip("pyarrow", reason="needs the tables extra")
    dates = arrow.array(range(12), arrow.timestamp("s"))
    for name, column, message in (
        ("grade", arrow.array(np.arange(12) % 2 / 2), "'grade' of .* holds numbers with a point"),
        ("grade", dates, r"'grade' of .* is of the type timestamp"),
        ("grade", arrow.array([["low"]] * 12), "'grade' of .* holds lists"),
        ("findings", arrow.array(["mass"] * 12), "'findings' needs a separator"),
        ("grade", arrow.array([*["low"] * 10, None, "high"]), "row 11, has no value in grade"),
        ("x", arrow.array([*[0.5] * 10, math.nan, 1]), "row 11, has x 'nan', which is not finite"),
        ("x", arrow.array([*[0.5] * 10, None, 1]), "row 11, has no value in x, y"),
        ("findings", arrow.array([["a"]] * 3 + [["a", None]] * 9), "row 4, has an empty label"),
        ("findings", arrow.array([["a"]] * 3 + [None] * 9), "row 4, has no value in findings"),
    ):
        card = as_parquet(root, lambda columns, new={name: column}: columns | new)
        with pytest.raises(SourceError, match=message) as caught:
            opened(root, card)
        assert "labels.parquet" in caught.value.message
    with pytest.raises(SourceError, match="'findings' needs no separator"):
        opened(root, as_parquet(root).replace("none =", 'separator = "|"\nnone ='))
    (root / "labels.parquet").write_text("path,grade\n")
    with pytest.raises(SourceError, match=r"labels\.parquet' is no Parquet file"):
        opened(root)


def many(root, count=60):
    rows = []
    for i in range(count):
        row = lines()[i % 12] | {"path": f"a/{i}.png", "patient": f"p{i // 4}"}
        Image.new("RGB", (8, 8)).save(root / "images" / row["path"])
        rows.append(row)
    write(root, rows)
    return rows


def test_without_a_split_column_they_are_made_up_and_no_group_is_split(root):
    rows = many(root)
    source = opened(root, CARD.replace('split = "part"\n', ""))
    of = defaultdict(set)
    for row, split in zip(rows, source.splits, strict=True):
        of[row["patient"]].add(split)
    assert all(len(splits) == 1 for splits in of.values())
    assert Counter(source.splits.tolist()) == {"train": 36, "val": 12, "test": 12}
    assert "brings no splits" in source.notes[0]
    alone = opened(root, CARD.replace('split = "part"\n', "").replace('group = "patient"\n', ""))
    by_grade = Counter(zip(alone.targets["table-grade"].tolist(), alone.splits, strict=True))
    for grade in (0, 1):
        assert [by_grade[grade, split] for split in ("train", "val", "test")] == [18, 6, 6]


def test_a_split_column_without_val_is_treated_as_folders_are(root):
    rows = many(root)
    write(root, [row | {"part": "test" if i >= 40 else "train"} for i, row in enumerate(rows)])
    source = opened(root)
    assert source.splits.tolist()[40:] == ["test"] * 20
    assert Counter(source.splits.tolist()[:40]) == {"train": 36, "val": 4}
    assert "its test split tests; 10 % of train" in source.notes[0]


LEAVING = CARD.replace('column = "age_years"', 'column = "age_years"\nmissing = "leave out"')
LEAVING = LEAVING.replace("classes = [", 'missing = "leave out"\nclasses = [')


def test_rows_without_a_value_are_left_out_of_their_task_alone(root):
    rows = lines()
    for row in (0, 4, 7):
        rows[row]["age_years"] = ""
    rows[3]["grade"] = ""
    write(root, rows)
    source = opened(root, LEAVING)
    codes = [0] * 6 + [1] * 3 + [2] * 3
    ages = [-1 if row in (0, 4, 7) else code for row, code in enumerate(codes)]
    grades = [-1 if row == 3 else code for row, code in enumerate(codes)]
    assert {name: split.tolist() for name, split in source.task_splits.items()} == {
        "table-age": ages,
        "table-grade": grades,
    }
    assert source.task_splits["table-age"].dtype == np.int8
    assert source.splits.tolist() == opened(root, LEAVING).splits.tolist()
    assert np.isnan(source.targets["table-age"][[0, 4, 7]]).all()
    assert np.isfinite(np.delete(source.targets["table-age"], [0, 4, 7])).all()
    assert source.targets["table-grade"][3] == -1
    assert "table-age leaves out 3 of 12 images without a value" in source.notes
    assert task_of(source, "table-age").split.endswith("images without a value are left out")
    assert not task_of(source, "table-site").split.endswith("left out")


def test_a_task_that_keeps_no_row_of_a_split_is_refused(root):
    rows = lines()
    for row in (6, 7, 8):
        rows[row]["age_years"] = ""
    write(root, rows)
    with pytest.raises(SourceError, match="val split of table-age is empty: 9 of 12 rows"):
        opened(root, LEAVING)
    for row in rows:
        row["age_years"] = ""
    write(root, rows)
    with pytest.raises(SourceError, match="has no value at all in age_years"):
        opened(root, LEAVING)


def test_an_empty_cell_may_be_the_word_for_no_label(root):
    rows = lines()
    for row in rows:
        row["findings"] = row["findings"].replace("normal", "")
    write(root, rows)
    assert any(not row["findings"] for row in rows)
    source = opened(root, CARD.replace('none = "normal"', 'none = ""'))
    write(root, lines())
    assert source.annotations == opened(root, CARD).annotations


WRONG_CELLS = [
    ("path", "a/0.png", "repeats the path 'a/0.png' of line 2"),
    ("path", "./a/../a/0.png", "repeats the path './a/../a/0.png' of line 2"),
    ("path", "", "has no path"),
    ("path", "/elsewhere/0.png", "has the path '/elsewhere/0.png', which is not below"),
    ("part", "dev", "has the split 'dev', not train, val (or validation, valid) or test"),
    ("part", "", "has no part"),
    ("patient", " ", "has no patient"),
    ("grade", "High", "has grade 'High', which is none of low, high, none"),
    ("grade", "", "has no value in grade"),
    ("hospital", "", "has no value in hospital"),
    ("findings", "", "has no value in findings"),
    ("findings", "mass|", "has an empty label in findings"),
    ("findings", "mass|normal", "has 'normal' beside other labels in findings"),
    ("edema", "2", "has edema '2', which is not 0 or 1"),
    ("mass", "", "has no value in edema, mass"),
    ("age_years", "old", "has age_years 'old', which is no number"),
    ("age_years", "1_0", "has age_years '1_0', which is no number"),
    ("age_years", "", "has no value in age_years"),
    ("heading", "nan", "has heading 'nan', which is not finite"),
    ("y", "-inf", "has y '-inf', which is not finite"),
    ("y", "1e999", "has y '1e999', which is not finite"),
]


@pytest.mark.parametrize(("column", "cell", "message"), WRONG_CELLS)
def test_a_wrong_cell_is_named_with_file_and_line(root, column, cell, message):
    rows = lines()
    rows[5][column] = cell
    write(root, rows)
    with pytest.raises(SourceError) as caught:
        opened(root)
    assert message in caught.value.message
    # The comment of the line before goes on in a line of its own.
    assert "labels.csv', line 8," in caught.value.message
    assert caught.value.hint


def test_a_path_below_the_root_may_be_absolute(root):
    write(root, [row | {"path": str(root / "images" / row["path"])} for row in lines()])
    source = opened(root)
    write(root, lines())
    assert source.manifest == opened(root).manifest


WRONG_CARDS = [
    ("table =", "tables =", "has a key 'tables'"),
    ("[tasks.age]", "[tasks.age]\nuint = 3", "[tasks.age] of .* has a key 'uint'"),
    ('unit = "years"', "unit = 3", "[tasks.age] of .* has unit = 3, which is not text"),
    ('kind = "classes"\ncl', 'kind = "class"\ncl', "has kind = 'class'"),
    ('kind = "classes"\ncl', "cl", "has no kind"),
    ("period = 360", "period = 0", "has period = 0.0"),
    ("period = 360", "period = inf", "has period = inf"),
    ("period = 360", 'period = "turn"', "has period = 'turn', which is not a number"),
    ("period = 360", 'separator = "|"', "[tasks.heading] of .* has a key 'separator'"),
    ('["low", "high", "none"]', '["low", "low"]', "lists 'low' twice in classes"),
    ('["low", "high", "none"]', '["low", 1.5]', "has classes ="),
    ('["low", "high", "none"]', '["low"]', "has the single class 'low'"),
    ('columns = ["x", "y"]', 'columns = ["x"]\ncolumn = "y"', "has column and columns"),
    ('columns = ["edema", "mass"]', 'columns = ["mass"]\nnone = "a"', "is for a single column"),
    ('separator = "|"\n', "", "'findings' needs a separator"),
    ('image = "path"', "", "has no image"),
    ('image = "path"', 'image = ""', "has an empty image"),
    ('root = "images"', 'root = "pictures"', "pictures' is not there"),
    ('root = "images"', 'framing = "zoom"', "has framing = 'zoom'"),
    ('root = "images"', 'delimiter = "||"', "has delimiter = '||'"),
    ("[tasks.age]", '[tasks."my age"]', "'my age' cannot stand for"),
    ("[tasks.age]", "[tasks]\nage = 3\n[tasks.b]", "[tasks.age] of .* is 3, and no section"),
    ('"labels.csv"', '"label.csv"', "There is no file '.*label.csv'"),
    ('"labels.csv"', '"labels.xlsx"', "is no table of a known kind"),
    ("table =", "table", "is not TOML: .*line 2"),
    (CARD[CARD.index("[tasks") :], "", "has no tasks"),
    (CARD[CARD.index("[tasks") :], "[tasks]", "asks nothing"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG_CARDS)
def test_what_is_wrong_with_a_card_is_named(root, old, new, message):
    assert old in CARD
    pattern = message.replace("[", r"\[").replace("||", r"\|\|")
    with pytest.raises(SourceError, match=pattern) as caught:
        opened(root, CARD.replace(old, new, 1))
    assert caught.value.hint


@pytest.mark.parametrize(
    "word", ['image = "path"', 'split = "part"', 'column = "hospital"', '["x", "y"]', '"patient"']
)
def test_a_column_that_is_not_there_shows_the_nearest(root, word):
    name = word.split('"')[1]
    with pytest.raises(UnknownNameError, match=f"no column called '{name}s'") as caught:
        opened(root, CARD.replace(word, word.replace(f'"{name}"', f'"{name}s"', 1)))
    assert name in caught.value.near


def test_a_table_alone_is_refused_with_a_card_as_hint(root):
    for path, message in (
        (root / "labels.csv", "is a table and does not say"),
        (root, "is a folder"),
        (root / "none.toml", "is not there"),
    ):
        with pytest.raises(SourceError, match=message) as caught:
            open_source("table", path)
        assert '[tasks.grade] with kind = "classes"' in caught.value.hint


def spoil(root, change):
    path = root / "labels.csv"
    path.write_bytes(change(path.read_bytes()))


WRONG_TEXTS = [
    (lambda it: it.replace(b"a/2.png,", b"a/2.png,,"), "line 4, has 14 cells for 13 columns"),
    (lambda it: it.rstrip()[:-20], r"line 14, has \d+ cells for 13 columns"),
    (lambda it: it.replace(b"hospital", b"grade", 1), "has 2 columns called 'grade'"),
    (lambda it: it.replace(b"b/3.png", b"b/\xff.png"), "is not UTF-8 text"),
    (lambda it: it.replace(b"b/3.png", b'"b/3.png'), "line 5, is broken"),
    (lambda it: b"", "is empty"),
    (lambda it: it[: it.index(b"\n")], "lists no image"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_TEXTS)
def test_a_broken_table_is_named(root, change, message):
    spoil(root, change)
    with pytest.raises(SourceError, match=message) as caught:
        opened(root)
    assert "labels.csv" in caught.value.message


def test_marks_of_other_programs_change_nothing(root):
    first = opened(root)
    spoil(root, lambda it: b"\xef\xbb\xbf" + it.replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert opened(root).annotations == first.annotations


def test_a_group_in_two_splits_is_refused(root):
    rows = lines()
    rows[11]["patient"] = "p0"
    write(root, rows)
    with pytest.raises(SourceError, match="has images of 'p0' in several splits: test, train"):
        opened(root)


def test_an_image_that_is_listed_and_not_there_is_named(root):
    (root / "images" / "b/5.png").unlink()
    with pytest.raises(SourceError, match=r"'b/5\.png' .* the file is not there"):
        opened(root)
    source = open_source("table", root / "card.toml", allow_missing=True)
    assert source.missing == {5: "the file is not there"}


def test_the_card_says_how_images_are_framed(root):
    assert opened(root).framing == "checkpoint"
    assert opened(root, 'framing = "whole"\n' + CARD).framing == "whole"
