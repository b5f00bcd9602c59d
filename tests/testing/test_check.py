"""The conformance suite finds what is wrong with a family: each fault here is one that was made."""

import dataclasses

import pytest
import torch

from layerscope.cli.main import app
from layerscope.models.families import families
from layerscope.models.families.moco import MoCo
from layerscope.testing import check_family
from tests.models.families.test_moco import example


class Gelu(MoCo):
    name = "faulty"

    def parts(self, contents, declared):
        return super().parts(contents, dataclasses.replace(declared, head_act="gelu"))


class Forgetful(MoCo):
    name = "faulty"

    def parts(self, contents, declared):
        parts = super().parts(contents, declared)
        return dataclasses.replace(parts, head=parts.head[:-1], ignored={})


class Lenient(MoCo):
    name = "faulty"

    def parts(self, contents, declared):
        weights = contents.raw
        key = "module.encoder_q.layer4.1.bn2.running_var"
        whole = weights.with_tensor(key, torch.zeros(512), list(weights)[:1])
        patched = dataclasses.replace(contents, root={"state_dict": dict(whole)})
        return super().parts(patched, declared)


class Backwards(MoCo):
    name = "faulty"

    def parts(self, contents, declared):
        parts = super().parts(contents, declared)
        stops = tuple(
            dataclasses.replace(stop, module="maxpool" if stop.name == "trunk" else stop.module)
            for stop in parts.trunk.stops
        )
        return dataclasses.replace(parts, trunk=dataclasses.replace(parts.trunk, stops=stops))


class Crashing(MoCo):
    name = "faulty"

    def parts(self, contents, declared):
        contents.state_dict.shapes["encoder_q.layer4.1.bn2.running_var"]
        return super().parts(contents, declared)


class Undecided(MoCo):
    name = "faulty"

    def recognise(self, contents):
        return contents.nothing


class Bare:
    name = "faulty"
    general = False

    def recognise(self, contents):
        return ""


@pytest.fixture
def register(monkeypatch):
    def put(family):
        others = {name: item for name, item in families.items() if name != "moco"}
        monkeypatch.setattr(families, "_items", others | {family.name: family})

    return put


@pytest.mark.parametrize(
    ("family", "finding"),
    [
        (Gelu(), "The features of head.1 differ"),
        (Forgetful(), "The cuts are"),
        (Forgetful(), "is ignored without a reason"),
        (Lenient(), "It loads although"),
        (Backwards(), "The cuts are"),
        (Crashing(), "it raises KeyError"),
        (Undecided(), "It raises AttributeError: 'Contents' object has no attribute 'nothing'"),
        (Bare(), "It has no title."),
        (Bare(), "It has no parts."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, MoCo) else "",
)
def test_a_fault_is_found(register, family, finding):
    register(family)
    findings = check_family("faulty", example())
    assert any(finding in found for found in findings), findings


def test_two_families_that_claim_one_file_are_found(monkeypatch):
    class Twin(MoCo):
        name = "twin"

    monkeypatch.setattr(families, "_items", dict(families.items()) | {"twin": Twin()})
    (found,) = check_family("moco", example())
    assert "fits several families: moco, twin" in found


def test_the_command_tells_a_conforming_family_from_a_faulty_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(families, "_items", dict(families.items()))
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "silent.py").write_text(
        "from layerscope.models.families import families\n"
        "from layerscope.models.families.moco import MoCo\n"
        "families.add('silent', MoCo())\n"
    )
    for name, said in (("empty", "registers no checkpoint family"), ("silent", "shows no example")):
        with pytest.raises(SystemExit) as ended:
            app(["check", "family", str(tmp_path / f"{name}.py")])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


def test_features_that_share_memory_with_the_network_are_found(monkeypatch):
    monkeypatch.setattr("layerscope.models.taps.pool", lambda output, *_: output.flatten(1))
    findings = check_family("moco", example())
    assert any("change when the layer's output is overwritten" in found for found in findings)
