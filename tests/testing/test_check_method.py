"""The checks of a training method find what is wrong with one: each fault here is easily made."""

import random

import pytest
import torch
from torch import nn

from layerscope.errors import UnknownNameError
from layerscope.testing import check_method
from layerscope.training.methods import methods
from layerscope.training.methods.category import Category
from layerscope.training.methods.simclr import SimCLR


class Sound(Category):
    name = "mine"


class Unlike(Sound):
    name = "other"


class Uncited(Sound):
    citation = ""


class Stopped(Sound):
    description = "It learns."


class Unasked(Sound):
    task = "objects3d-nothing"


class Endless(SimCLR):
    name, output = "mine", None


class Negative(Sound):
    output = -1


class Listed(Sound):
    def inputs(self, image, side):
        return list(super().inputs(image, side))


class Uncropped(Sound):
    def inputs(self, image, side):
        return (image,)


class Floating(Sound):
    def inputs(self, image, side):
        return tuple(view / 255 for view in super().inputs(image, side))


class Drawing(Sound):
    def inputs(self, image, side):
        (view,) = super().inputs(image, side)
        return (view.roll(random.randrange(1, 1000), 2),)


class Inking(Sound):
    def inputs(self, image, side):
        result = super().inputs(image, side)
        image[:] = 0
        return result


class Rows(Sound):
    def loss(self, network, views, targets):
        return nn.functional.cross_entropy(network(views[0]), targets, reduction="none")


class Undefined(Sound):
    def loss(self, network, views, targets):
        return super().loss(network, views, targets) * torch.nan


class Detached(Sound):
    def loss(self, network, views, targets):
        return super().loss(network, views, targets).detach()


class TrunkOnly(Sound):
    def loss(self, network, views, targets):
        return network.trunk(views[0]).square().mean() + targets.sum() * 1e-3


class Overwriting(Sound):
    def loss(self, network, views, targets):
        result = super().loss(network, views, targets)
        views[0].zero_()
        return result


class Resetting(Sound):
    def loss(self, network, views, targets):
        result = super().loss(network, views, targets)
        with torch.no_grad():
            network.head[0][0].weight.zero_()
        return result


class Deaf(Sound):
    def loss(self, network, views, targets):
        return super().loss(network, views, targets * 0)


class Rising(Sound):
    def loss(self, network, views, targets):
        loss = super().loss(network, views, targets)
        return 2 * loss.detach() - loss


class Restless(Sound):
    def loss(self, network, views, targets):
        noise = torch.empty(()).uniform_(0, 0.1, generator=torch.Generator().manual_seed(seed()))
        return super().loss(network, views, targets) + noise


def seed():
    return random.randrange(2**31)


class Crashing(Sound):
    def loss(self, network, views, targets):
        raise KeyError("trunk.fc")


class Bare:
    name = "mine"


@pytest.fixture
def found(monkeypatch):
    def check(method):
        monkeypatch.setattr(methods, "_items", {**dict(methods.items()), "mine": method})
        return check_method("mine")

    return check


def test_a_sound_one_conforms_and_the_generator_stays_where_it_was(found):
    before = torch.random.get_rng_state()
    assert found(Sound()) == []
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", ["simclr", "rotation", "category"])
def test_ours_conform(name):
    assert check_method(name) == []


@pytest.mark.parametrize(
    ("kind", "finding"),
    [
        (Unlike, "registered as 'mine', and its name is 'other'"),
        (Uncited, "Its citation is empty"),
        (Stopped, "ends with a full stop"),
        (Unasked, "task 'objects3d-nothing' is not registered"),
        (Endless, "Its output is None"),
        (Negative, "Its output is -1"),
        (Listed, "inputs() gives list"),
        (Uncropped, "gives a view (3, 48, 40) of torch.uint8, not (3, 32, 32)"),
        (Floating, "of torch.float32, not"),
        (Drawing, "gives other views"),
        (Inking, "inputs() changes the image"),
        (Rows, "no single number"),
        (Undefined, "Its loss is nan"),
        (Detached, "has no gradient"),
        (TrunkOnly, "parameters have no gradient, such as head."),
        (Overwriting, "changes the views or the targets"),
        (Resetting, "changes the network's parameters"),
        (Deaf, "the same for other targets of objects3d-category"),
        (Rising, "does not fall"),
        (Restless, "other losses in a second training"),
        (Crashing, "It raises KeyError: 'trunk.fc'"),
    ],
)
def test_a_fault_is_found(found, kind, finding):
    findings = found(kind())
    assert any(finding in one for one in findings), findings


def test_each_attribute_that_is_missing_is_a_finding(found):
    names = ("task", "description", "citation", "output", "inputs", "loss")
    assert found(Bare()) == [f"It has no {name}." for name in names]


def test_an_unknown_method_is_wrong_use():
    with pytest.raises(UnknownNameError):
        check_method("nobodys")
