import argparse
import collections
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile

import huggingface_hub
import numpy
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models import load
from layerscope.models.files.hub import fetch_from_hub
from layerscope.models.files.pickles import InertObject, read_pickle
from layerscope.models.files.records import Record
from layerscope.models.files.weights import read_contents, sha256_of_file

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.uint16,
]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.twice = self.stem[0]
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.register_parameter("none", None)
        self.width: int = 7

    def forward(self, x):
        return self.stem(x)


class Call:
    """Pickles into a call of any function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def saved(path, value, **options):
    torch.save(value, path, **options)
    return path


def scripted(path, module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), path)
    return path


def table():
    base = torch.arange(24.0).reshape(4, 6)
    return {
        **{str(dtype): torch.arange(7).to(dtype) for dtype in DTYPES},
        "view": base[1:, ::2],
        "transposed": base.t(),
        "whole": base,
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 5),
        "parameter": nn.Parameter(torch.randn(3, 2)),
        "buffer": nn.Buffer(torch.randn(2)),
        "nested": {"list": [torch.ones(2), {"deep": torch.zeros(1)}], 3: "three", None: (1, 2.5)},
        "ordered": collections.OrderedDict(a=torch.ones(1), b=None),
        "plain": {"size": torch.Size([2, 3]), "bytes": b"\xff\x00", "big": 1 << 80, "no": -1},
        "expanded": torch.ones(1).expand(3, 4),
    }


def assert_same(found, expected):
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert found.stride() == expected.stride()
        assert torch.equal(found, expected.detach())
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"_use_new_zipfile_serialization": False},
        {"pickle_protocol": 4},
        {"pickle_protocol": 5},
        {"pickle_protocol": 3, "_use_new_zipfile_serialization": False},
    ],
)
def test_files_of_torch_are_read_as_torch_reads_them(tmp_path, options):
    value = table()
    if "_use_new_zipfile_serialization" in options:
        del value["torch.uint16"]  # which torch cannot write there
    path = saved(tmp_path / "file.pth", value, **options)
    expected = torch.load(path, weights_only=False)
    assert_same(read_contents(path).root, expected)
    for name in ("x.pt", "x.ckpt", "x.pth.tar", "x.bin", "x.safetensors", "x"):
        path = path.rename(tmp_path / name)
        assert_same(read_contents(path).root, expected)


def test_tensors_of_one_storage_still_share_it(tmp_path):
    root = read_contents(saved(tmp_path / "x.pt", table())).root
    assert root["view"].untyped_storage().data_ptr() == (root["whole"].untyped_storage().data_ptr())


def test_archives_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "x.pt", {"a": torch.arange(5.0)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_contents(path).root["a"].tolist() == [0, 1, 2, 3, 4]


def test_records_that_do_not_lie_where_their_type_demands_are_copied(tmp_path):
    source = saved(tmp_path / "x.pt", {"a": torch.arange(5.0)})
    path = tmp_path / "repacked.pt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with path.open("rb") as file:
        assert file.read().find(torch.arange(5.0).numpy().tobytes()) % 4
    tensor = read_contents(path).root["a"]
    assert tensor.data_ptr() % 4 == 0
    assert tensor.tolist() == [0, 1, 2, 3, 4]


def test_safetensors_are_read_whatever_they_are_called(tmp_path):
    state = {"a": torch.randn(2, 3).half(), "b": torch.ones(2, dtype=torch.bfloat16)}
    save_file(state, tmp_path / "model.bin")
    assert_same(dict(sorted(read_contents(tmp_path / "model.bin").root.items())), state)


def test_torchscript_archives_yield_their_state_dict(tmp_path):
    net = Net().half()
    found = read_contents(scripted(tmp_path / "clip.pt", net)).root
    expected = net.state_dict() | {"passing": net.passing}
    assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in expected.items()}
    assert found["stem.0.weight"].dtype == torch.float16


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_modules_yield_their_state_dict_once_trusted(tmp_path, zipped):
    net = Net()
    path = tmp_path / "model.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"model": net}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="holds code beyond plain tensors") as refused:
        read_contents(path)
    option = refused.value.hint.rpartition("--declare trust=")[2]
    assert set(option.split(",")) == {
        f"{Net.__module__}.Net",
        "torch.nn.modules.linear.Linear",
        "torch.nn.modules.batchnorm.BatchNorm1d",
        "torch.nn.modules.container.Sequential",
    }
    assert_same(read_contents(path, trust=option.split(",")).root["model"], dict(net.state_dict()))
    torch.save(net, path, _use_new_zipfile_serialization=zipped)
    assert_same(read_contents(path, trust=option.split(",")).root, dict(net.state_dict()))


@pytest.mark.parametrize("zipped", [True, False])
def test_every_blocked_name_is_told_with_the_option_that_trusts_it(tmp_path, zipped):
    value = {
        "opt": argparse.Namespace(epochs=100, model="resnet50", nested={"lr": 0.1}),
        "best": numpy.float64(3.5),
        "counts": collections.defaultdict(list, a=[1]),
        "w": torch.ones(2),
    }
    path = saved(tmp_path / "x.pth", value, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as refused:
        read_contents(path, trust=["argparse.Namespace"])
    scalar = f"{numpy.float64(1).__reduce__()[0].__module__}.scalar"
    names = ["builtins.list", "collections.defaultdict", scalar, "numpy.dtype"]
    assert refused.value.message.endswith(f"beyond plain tensors: {', '.join(names)}.")
    trust = ["argparse.Namespace", *names]
    assert refused.value.hint.endswith(f"--declare trust={','.join(trust)}")
    contents = read_contents(path, trust=trust)
    with pytest.raises(CheckpointError, match="fits no known family"):
        load(path, trust=trust)
    assert contents.value("opt", "model") == "resnet50"
    assert contents.value("opt", "nested", "lr") == 0.1
    assert contents.root["opt"] == {"epochs": 100, "model": "resnet50", "nested": {"lr": 0.1}}
    assert contents.root["counts"] == {"a": [1]}
    assert isinstance(contents.root["best"], Record)
    assert list(contents.tensors) == ["w"]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_payload_stays_inert_even_when_its_name_is_trusted(tmp_path, zipped, protocol):
    target, other = tmp_path / "written", tmp_path / "evaluated"
    value = {
        "system": Call(os.system, f"touch {target}"),
        "eval": Call(eval, f"__import__('pathlib').Path({str(other)!r}).touch()"),
        "w": torch.ones(1),
    }
    options = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    path = saved(tmp_path / "evil.pth", value, **options)
    names = [f"{os.system.__module__}.system", "builtins.eval"]
    with pytest.raises(CheckpointError, match="holds code") as refused:
        read_contents(path)
    assert all(name in refused.value.message for name in names)
    root = read_contents(path, trust=names).root
    assert root["system"].arguments == (f"touch {target}",)
    assert not target.exists()
    assert not other.exists()
    torch.load(path, weights_only=False)  # the payload is one that works
    assert target.exists()
    assert other.exists()


class Node:
    """Refers to its parent, as the nodes of OmegaConf do."""

    def __init__(self, parent=None, **content):
        self.__dict__.update(content, parent=parent)


def test_records_that_refer_to_their_parents_end(tmp_path):
    root = Node(lr=0.5)
    root.child = Node(parent=root, depth=18)
    path = saved(tmp_path / "x.ckpt", {"hyper_parameters": root})
    contents = read_contents(path, trust=[f"{Node.__module__}.Node"])
    assert contents.value("hyper_parameters", "child", "depth") == 18
    assert contents.value("hyper_parameters", "child", "parent") == {}
    assert contents.tensors == {}


def test_omegaconf_is_seen_as_what_it_contains(tmp_path):
    # Its classes need not be there: what they would have written is written by hand.
    body = (
        b"\x80\x02}X\x01\x00\x00\x00ccomegaconf.dictconfig\nDictConfig\n)\x81}(X\x08\x00\x00\x00"
        b"_content}X\x05\x00\x00\x00widthcomegaconf.nodes\nAnyNode\n)\x81}(X\x04\x00\x00\x00_valK"
        b"\x07X\x07\x00\x00\x00_parentNubsX\x07\x00\x00\x00_parentNubs."
    )
    path = archived(tmp_path / "x.ckpt", body)
    names = ["omegaconf.dictconfig.DictConfig", "omegaconf.nodes.AnyNode"]
    assert read_contents(path, trust=names).root == {"c": {"width": 7}}


def archived(path, body, **records):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", body)
        file.writestr("archive/version", "3\n")
        for name, data in records.items():
            file.writestr(f"archive/data/{name}", data)
    return path


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        (torch.ones(2, dtype=torch.complex64), "'bad' holds complex numbers"),
        (torch.ones(2).to(torch.float8_e4m3fn), "'bad' holds float8"),
        (torch.ones(2).to_sparse(), "'bad' is sparse"),
        (torch.ones(2, device="meta"), "'bad' is on the meta device"),
        (torch.complex(torch.ones(2), torch.ones(2)).conj().imag, "'bad' is a conjugated or neg"),
    ],
)
def test_other_than_plain_numbers_are_refused_with_their_names(tmp_path, tensor, match):
    path = saved(tmp_path / "x.pth", {"fine": torch.ones(1), "bad": tensor})
    with pytest.raises(CheckpointError, match=match):
        read_contents(path)


def test_quantised_tensors_are_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
        path = saved(tmp_path / "x.pth", {"bad": tensor})
    with pytest.raises(CheckpointError, match="'bad' is quantised"):
        read_contents(path)


def test_safetensors_of_narrow_floats_are_refused(tmp_path):
    save_file({"bad": torch.ones(2).to(torch.float8_e5m2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="'bad' holds float8"):
        read_contents(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\x1f\x8b\x08" + bytes(40), "compressed with gzip"),
        (bytes(257) + b"ustar" + bytes(250), "is a tar archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (b"\x93NUMPY" + bytes(40), "NumPy array"),
        (b"\x08\x07\x12\x07pytorch" + bytes(40), "ONNX"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "page of a website"),
        (b"Access denied. Please log in.\n", "is text and not weights"),
        (b'{"error": "Repository not found"}', "is text and not weights"),
        (pickle.dumps({"params": numpy.ones(2)}), "pickle that torch.save did not write"),
        (pickle.dumps({"params": numpy.ones(2)}, 0), "pickle that torch.save did not write"),
        (bytes(100), "no checkpoint of a known kind"),
    ],
)
def test_other_kinds_of_files_are_named_with_what_to_do(tmp_path, data, match):
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match=match) as refused:
        read_contents(tmp_path / "x.pth")
    assert refused.value.hint


def test_archives_of_other_things_are_named(tmp_path):
    numpy.savez(tmp_path / "x.npz", a=numpy.ones(2))
    with pytest.raises(CheckpointError, match=r"NumPy arrays \(\.npz\)"):
        read_contents(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("model.pth", b"inside")
    with pytest.raises(CheckpointError, match=r"it holds 'model\.pth'"):
        read_contents(tmp_path / "x.zip")


@pytest.mark.parametrize("value", [torch.ones(2), [torch.ones(2)], 3])
def test_what_is_no_table_is_refused(tmp_path, value):
    with pytest.raises(CheckpointError, match="no table of tensors"):
        read_contents(saved(tmp_path / "x.pth", value))


def test_a_folder_is_refused_with_its_candidates(tmp_path, monkeypatch):
    for name in ("b.safetensors", "a.pth", "readme.md"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"with a\.pth, b\.safetensors") as refused:
        read_contents(tmp_path)
    assert str(tmp_path / "a.pth") in refused.value.hint
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(CheckpointError, match="is a folder with"):
        load(tmp_path.name)
    (tmp_path / "none").mkdir()
    with pytest.raises(CheckpointError, match="folder without any"):
        read_contents(tmp_path / "none")


def test_settings_beside_the_weights_are_read(tmp_path):
    path = saved(tmp_path / "x.pth", {"a": torch.ones(1)})
    (tmp_path / "args.json").write_text('{"method": "byol"}')
    (tmp_path / "config.json").write_text('{"a": {"b": [1]}}')
    (tmp_path / "other.json").write_text("damaged")
    beside = read_contents(path).beside
    assert beside == {"args.json": {"method": "byol"}, "config.json": {"a": {"b": [1]}}}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"a": ', r"config\.json' beside the weights is no JSON"),
        ("[" * 100_000, r"config\.json' beside the weights is no JSON"),
        ("\xff\xfe", r"config\.json' beside the weights is no JSON"),
        ("[1]", "no table"),
        ('{"a": "' + "x" * (1 << 20) + '"}', "too many"),
    ],
)
def test_damaged_settings_beside_the_weights_are_refused(tmp_path, text, match):
    path = saved(tmp_path / "x.pth", {"a": torch.ones(1)})
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=match):
        read_contents(path)


@pytest.fixture
def index(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(2), "c": torch.ones(3)}, tmp_path / "model-2.safetensors")
    placed = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return path


def test_the_files_of_an_index_are_merged(index):
    root = read_contents(index).root
    assert {name: tensor.numel() for name, tensor in root.items()} == {"a": 1, "b": 2, "c": 3}


def test_the_hash_of_an_index_covers_its_files(index):
    before = sha256_of_file(index)
    save_file({"a": torch.zeros(1)}, index.with_name("model-1.safetensors"))
    assert sha256_of_file(index) != before
    single = index.with_name("model-1.safetensors")
    assert sha256_of_file(single) == hashlib.sha256(single.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("placed", "match"),
    [
        ({"a": "../model-1.safetensors"}, "no file of its folder"),
        ({"a": "/etc/passwd"}, "no file of its folder"),
        ({"a": ".."}, "no file of its folder"),
        ({"a": 3}, "no file of its folder"),
        ({"a": "model.safetensors.index.json"}, "no file of its folder"),
        ({"a": "model-3.safetensors"}, r"'model-3\.safetensors' is missing"),
        ({"a": "model-1.safetensors", "z": "model-1.safetensors"}, "does not fit its file"),
        ({"b": "model-2.safetensors"}, "does not fit its file"),
        ({}, "without a weight_map"),
    ],
)
def test_an_index_cannot_lie(index, placed, match):
    index.write_text(json.dumps({"weight_map": placed}))
    with pytest.raises(CheckpointError, match=match):
        read_contents(index)


class Absent(EntryNotFoundError):
    """What the hub says of a file that its repository does not have."""

    def __init__(self, name):
        Exception.__init__(self, f"404: no {name}")


def test_files_of_the_hub_come_with_what_explains_them(tmp_path, monkeypatch):
    state = {"a": torch.ones(1)}
    (tmp_path / "sub").mkdir()
    save_file(state, tmp_path / "sub" / "model.safetensors")
    (tmp_path / "sub" / "config.json").write_text('{"k": 1}')
    asked = []

    def download(repo_id, filename, revision=None):
        asked.append((repo_id, filename, revision))
        if not (tmp_path / filename).is_file():
            raise Absent(filename)
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    path = fetch_from_hub("hf://owner/repo@v1/sub/model.safetensors")
    assert read_contents(path).beside == {"config.json": {"k": 1}}
    assert asked[0] == ("owner/repo", "sub/model.safetensors", "v1")
    assert ("owner/repo", "sub/config.json", "v1") in asked
    with pytest.raises(CheckpointError, match=r"no file 'other\.pth' in 'owner/repo'"):
        fetch_from_hub("hf://owner/repo/other.pth")
    with pytest.raises(CheckpointError, match="fits no known family"):
        load("hf://owner/repo/sub/model.safetensors")


def test_all_files_of_an_index_are_fetched(index, tmp_path, monkeypatch):
    asked = []

    def download(repo_id, filename, revision=None):
        asked.append(filename)
        if not (tmp_path / filename).is_file():
            raise Absent(filename)
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert fetch_from_hub(f"hf://o/r/{index.name}") == index
    assert {"model-1.safetensors", "model-2.safetensors"} <= set(asked)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks its file 'model-2\.safetensors'"):
        fetch_from_hub(f"hf://o/r/{index.name}")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Network is unreachable\nwith details"),
        LocalEntryNotFoundError("Cannot reach the hub"),
        ValueError("Repo id must be a name"),
    ],
)
def test_a_failing_download_is_one_clear_error(monkeypatch, error):
    def download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(CheckpointError, match=r"'hf://o/r/f\.pth' could not be fetched") as refused:
        load("hf://o/r/f.pth")
    assert str(error).split("\n")[0] in refused.value.message
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["hf://", "hf://owner", "hf://owner/repo", "hf://o/r/../x"])
def test_incomplete_names_of_the_hub_are_refused(name):
    with pytest.raises(CheckpointError, match="names no file on the hub"):
        fetch_from_hub(name)


def lies(folder):
    """Write files that claim a terabyte or more, and return their paths."""
    claim = 1 << 38
    yield archived(folder / "storage.pt", tensor_pickle(claim, (claim,), (1,)), **{"0": bytes(64)})
    yield archived(folder / "size.pt", tensor_pickle(16, (claim,), (1,)), **{"0": bytes(64)})
    yield archived(folder / "stride.pt", tensor_pickle(16, (claim,), (0,)), **{"0": bytes(64)})
    yield archived(folder / "memo.pt", b"\x80\x02}r" + struct.pack("<I", 0xFFFFFFF0) + b".")
    yield archived(folder / "bytes.pt", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"xx.")
    yield archived(folder / "frame.pt", b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"}.")
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(1 << 27))
    yield folder / "bomb.pt"
    legacy = saved(folder / "legacy.pt", {"a": torch.ones(4)}, _use_new_zipfile_serialization=False)
    data = legacy.read_bytes()
    legacy.write_bytes(data[:-24] + struct.pack("<q", claim) + data[-16:])
    yield legacy
    raw = folder / "raw.pt"
    raw.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"xx.")
    yield raw
    header = {"a": {"dtype": "F32", "shape": [claim], "data_offsets": [0, 4 * claim]}}
    text = json.dumps(header).encode()
    path = folder / "offsets.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
    yield path
    path = folder / "header.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 40) + b'{"a": 1}')
    yield path
    # The last one has 600 000 operations of its own, and takes the memory that these do.
    yield archived(folder / "deep.pt", b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".")


def tensor_pickle(values, size, stride, first=0, kind=b"FloatStorage"):
    body = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(("
    body += b"X\x07\x00\x00\x00storagectorch\n" + kind + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    body += number(values) + b"tQ" + number(first)
    body += b"(" + b"".join(map(number, size)) + b"t(" + b"".join(map(number, stride)) + b"t"
    return body + b"\x89ccollections\nOrderedDict\n)RtRs."


def number(value):
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def test_the_pickles_made_by_hand_here_are_sound(tmp_path):
    data = torch.arange(16.0).numpy().tobytes()
    path = archived(tmp_path / "x.pt", tensor_pickle(16, (2, 3), (8, 2), 1), **{"0": data})
    assert read_contents(path).root["a"].tolist() == [[1, 3, 5], [9, 11, 13]]
    assert torch.equal(read_contents(path).root["a"], torch.load(path)["a"])


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (tensor_pickle(16, (17,), (1,)), "'a' of size 17 needs 17 values and its storage has 16"),
        (tensor_pickle(16, (2, 2), (15, 2)), "'a' of size 2×2 needs 18 values"),
        (tensor_pickle(16, (4,), (1,), 13), "'a' of size 4 needs 17 values"),
        (tensor_pickle(16, (-4,), (1,)), "'a' has an impossible size"),
        (tensor_pickle(16, (4,), (-1,)), "'a' has an impossible size"),
        (tensor_pickle(16, (4,), (1,), -1), "'a' has an impossible size"),
        (tensor_pickle(16, (4,), (1, 1)), "'a' has an impossible size"),
        (tensor_pickle(16, (0, 1 << 60), (1, 1)), "'a' has an impossible size"),
        (tensor_pickle(16, (1 << 30, 1 << 30), (0, 0)), "'a' has an impossible size"),
        (tensor_pickle(16, (1 << 30,), (0,)), "'a' of size 1073741824 unfolds"),
        (tensor_pickle(8, (4,), (1,)), "claims 8 values and has 16, which its tensor 'a' needs"),
        (tensor_pickle(-1, (4,), (1,)), "'a' is described wrongly"),
        (
            tensor_pickle(8, (4,), (1,), kind=b"DreamStorage"),
            "'a' holds values of the type 'Dream'",
        ),
        (tensor_pickle(16, (4,), (1,), kind=b"QInt8Storage"), "'a' holds quantised values"),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, body, match):
    with pytest.raises(CheckpointError, match=match):
        read_contents(archived(tmp_path / "x.pt", body, **{"0": bytes(64)}))


@pytest.mark.slow
def test_a_lie_in_a_header_costs_no_memory(tmp_path):
    paths = [str(path) for path in lies(tmp_path)]
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from layerscope.errors import CheckpointError\n"
        "from layerscope.models.files.weights import read_contents\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in sys.argv[1:]:\n"
        "    before = peak()\n"
        "    try: read_contents(Path(name))\n"
        "    except CheckpointError as error: print(peak() - before, error)\n"
        "    else: print(-1, name)\n"
    )
    # A process begins with the peak of the one that it was forked from: here a small shell's.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", code, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    unit = 1024 if sys.platform == "linux" else 1
    grown = [int(line.split()[0]) * unit for line in lines]
    assert all(0 <= size < 20e6 for size in grown[:-1]), done.stdout
    assert 1e6 < grown[-1] < 150e6, done.stdout


def test_tables_that_unfold_without_end_are_refused(tmp_path):
    doubled = {"w": torch.ones(1)}
    for _ in range(40):
        doubled = {"a": doubled, "b": doubled}
    with pytest.raises(CheckpointError, match="unfolds to far more than it holds"):
        read_contents(saved(tmp_path / "x.pt", doubled))
    doubled["self"] = doubled
    looped = {"a": {}}
    looped["a"]["a"] = looped
    with pytest.raises(CheckpointError, match="contains itself"):
        read_contents(saved(tmp_path / "y.pt", looped))


def test_pickles_are_read_as_inert_records():
    read = read_pickle(pickle.dumps({"a": [1, (2.5, None)], "b": Call(print, "loud")}, 4))
    assert read.globals == {"builtins.print"}
    values = dict(read.value.pairs)
    assert values["a"] == [1, (2.5, None)]
    assert isinstance(values["b"], InertObject)
    assert (values["b"].name, values["b"].arguments) == ("builtins.print", ("loud",))


def test_any_flipped_byte_is_found_or_without_effect(tmp_path):
    state = {f"layer{n}": torch.randn(5) for n in range(4)}
    data = bytearray(saved(tmp_path / "x.pt", state).read_bytes())
    generator = numpy.random.default_rng(0)
    found = 0
    path = tmp_path / "flipped.pt"
    for position in generator.choice(len(data), 300, replace=False):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(generator.integers(8))
        path.unlink(missing_ok=True)  # what was mapped before stays as it was
        path.write_bytes(flipped)
        try:
            assert_same(read_contents(path).root, state)
        except CheckpointError:
            found += 1
    assert found > 50
