"""Series of checkpoints: which a user's words name, and what tells them apart."""

from pathlib import Path

import pytest

from layerscope.errors import SettingsError
from layerscope.models.checkpoint_list import (
    ListedCheckpoint,
    epoch_of,
    listed_checkpoints,
    read_table,
)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs")
    folder.mkdir()
    for epoch in (1, 2, 10):
        (folder / f"epoch_{epoch}.pth").touch()
    return folder


def table(text, name="runs.csv"):
    path = Path(name)
    path.write_text(text)
    return path


def words(found):
    return [Path(member.checkpoint).name for member in found]


@pytest.mark.parametrize(
    ("name", "epoch"),
    [
        ("epoch_012.pth", 12),
        ("epoch=12-step=3400.ckpt", 12),
        ("simclr-epoch-007.safetensors", 7),
        ("net.Epoch3.pth.tar", 3),
        ("epoch10", 10),
        ("a/epoch_3/last.pth", None),
        ("resnet50_100epochs.pth", None),
        ("checkpoint_0100.pth.tar", None),
        ("myepoch_3.pth", None),
        ("epoch_1-of-epoch_9.pth", None),
        ("epoch_9-epoch_9.pth", 9),
    ],
)
def test_an_epoch_is_told_by_the_word_alone(name, epoch):
    assert epoch_of(name) == epoch


def test_a_pattern_gives_its_files_in_the_order_of_their_numbers(runs):
    found = listed_checkpoints(["runs/epoch_*.pth"])
    assert words(found) == ["epoch_1.pth", "epoch_2.pth", "epoch_10.pth"]
    assert [member.settings for member in found] == [{"epoch": n} for n in (1, 2, 10)]


def test_the_shell_may_expand_a_pattern_as_well(runs):
    expanded = [str(path) for path in sorted(runs.glob("*"))]
    assert expanded[1].endswith("epoch_10.pth")  # the shell's order, which is kept
    assert words(listed_checkpoints(expanded)) == [Path(word).name for word in expanded]
    assert listed_checkpoints(["runs/epoch_1.pth", "runs/*"]) == listed_checkpoints(["runs/*"])


def test_a_card_beside_its_weights_counts_once(runs):
    (runs / "epoch_2.toml").touch()
    (runs / "random.toml").touch()
    names = ["epoch_1.pth", "epoch_2.pth", "epoch_10.pth", "random.toml"]
    assert words(listed_checkpoints(["runs/*"])) == names
    assert words(listed_checkpoints(["runs/epoch_2.toml"])) == ["epoch_2.toml"]


def test_names_and_addresses_are_no_patterns(runs):
    (runs / "odd[1].pth").touch()
    given = ["simclr-objects3d", "hf://owner/repo/[a]*.bin", "runs/odd[1].pth", "runs/gone.pth"]
    assert [member.checkpoint for member in listed_checkpoints(given)] == given


def test_a_pattern_without_a_file_is_an_error(runs):
    with pytest.raises(SettingsError, match=r"No file matches 'runs/step_\*.pth'"):
        listed_checkpoints(["runs/epoch_1.pth", "runs/step_*.pth"])


def test_a_table_tells_settings_as_numbers_and_words(runs):
    path = table(
        "checkpoint,name,lr,batch,method,epoch,note\n"
        "runs/epoch_1.pth,first,1e-3,256,SimCLR,,1_0\n"
        "\n"
        "runs/epoch_2.pth,,0.3,-1,BYOL,7,inf\n"
        "simclr-objects3d,,,,,,\n"
    )
    first, second, card = read_table(path)
    assert first == ListedCheckpoint(
        "runs/epoch_1.pth",
        "first",
        {"epoch": 1, "lr": 0.001, "batch": 256, "method": "SimCLR", "note": "1_0"},
    )
    assert isinstance(first.settings["batch"], int)
    assert second.settings == {"lr": 0.3, "batch": -1, "method": "BYOL", "epoch": 7, "note": "inf"}
    assert card == ListedCheckpoint("simclr-objects3d")


def test_paths_are_those_beside_the_table(runs, monkeypatch, tmp_path):
    path = table("checkpoint\tlr\nepoch_1.pth\t0.1\n", "runs/grid.tsv").absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (member,) = read_table(path)
    assert Path(member.checkpoint).is_file()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has the columns (none)"),
        ("checkpoint,lr\n", "lists no checkpoint"),
        ("path,lr\na,1\n", "has the columns path, lr"),
        ("checkpoint,lr,lr\na,1,2\n", "several columns called 'lr'"),
        ("checkpoint,lr\nruns/epoch_1.pth\n", "line 2, has 1 cells for 2 columns"),
        ("checkpoint,lr\n,1\n", "line 2, names no checkpoint"),
        ('checkpoint,lr\n"runs/epoch_1.pth,1\n', "cannot be read"),
        (
            "checkpoint\nruns/epoch_1.pth\nruns/epoch_3.pth\nruns/epoch_4.pth\n",
            "line 3, names 'runs/epoch_3.pth', which is neither a file nor a card; 1 more are",
        ),
        (
            "checkpoint\nruns/epoch_1.pth\nruns/epoch_2.pth\n./runs/epoch_1.pth\n",
            "line 4, repeats the checkpoint 'runs/epoch_1.pth' of line 2",
        ),
        (
            "checkpoint,name\nruns/epoch_1.pth,a\nruns/epoch_2.pth,a\n",
            "line 3, repeats the name 'a' of line 2",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_line(runs, text, said):
    with pytest.raises(SettingsError) as raised:
        read_table(table(text))
    assert said in raised.value.message
    assert raised.value.hint


def test_a_table_that_is_none_is_refused(runs):
    with pytest.raises(SettingsError, match=r"There is no table 'gone\.csv'"):
        read_table(Path("gone.csv"))
    with pytest.raises(SettingsError, match="is of no known kind"):
        read_table(Path("runs.xlsx"))
    Path("bytes.csv").write_bytes(b"checkpoint\n\xff\xfe\n")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_table(Path("bytes.csv"))
