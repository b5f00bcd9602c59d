"""The layout of bytedance/ibot: DINO's, with a second last layer and the student's mask."""

import pytest
import torch
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.test_dino import contents, small_vit, wrapper
from tests.models.families.truth import vit_features


def network(seed: int, shared: bool, masked: bool) -> nn.Module:
    both = wrapper(seed, small_vit(), 192)
    if masked:
        both.backbone.masked_embed = nn.Parameter(torch.randn(1, 192))
    both.head.last_layer2 = both.head.last_layer if shared else nn.Module()
    if not shared:
        both.head.last_layer2.weight_g = nn.Parameter(torch.ones(20, 1))
        both.head.last_layer2.weight_v = nn.Parameter(torch.randn(20, 32))
    return both


def forward_of(both: nn.Module, head: bool = True):
    def forward(images):
        features = vit_features(both.backbone, images)
        return both.head.add_features(features) if head else features

    return forward


@pytest.mark.parametrize(("branch", "shared"), [(None, True), (None, False), ("online", False)])
def test_every_cut_equals_a_plain_forward(branch, shared):
    student, teacher = network(0, False, True), network(1, shared, False)
    file = contents(student, teacher)
    file["ibot_loss"] = file.pop("dino_loss")
    both = student if branch == "online" else teacher
    made = FamilyExample(file, forward_of(both), declared=Declared(branch=branch))
    assert check_family("ibot", made) == []


def extracted(file: dict, prefix: str, head: bool) -> dict:
    """What the repository's script keeps: the trunk's keys shortened, the head's as they were."""
    state = {}
    for key, value in file.items():
        if key.startswith(f"{prefix}backbone."):
            state[key.removeprefix(f"{prefix}backbone.")] = value
        elif head:
            state[key] = value
    return {"state_dict": state}


@pytest.mark.parametrize("head", [False, True])
def test_a_student_that_was_extracted(head):
    student = network(0, False, True)
    file = {f"module.{key}": value for key, value in student.state_dict().items()}
    made = FamilyExample(
        extracted(file, "module.", head),
        forward_of(student, head),
        declared=Declared(branch="online"),
        branches=("online",),
    )
    assert check_family("ibot", made) == []
    contents = Contents(made.contents)
    assert assemble(contents, Declared()).keys == assemble(contents, made.declared).keys
    with pytest.raises(CheckpointError, match="holds online weights alone"):
        assemble(contents, Declared(branch="momentum"))


def test_a_teacher_that_was_extracted_with_its_head():
    teacher = network(1, True, False)
    made = FamilyExample(
        extracted(teacher.state_dict(), "", True), forward_of(teacher), branches=("momentum",)
    )
    assert check_family("ibot", made) == []
