"""The layout of tonylins/simclr-converter: torchvision's names in another order, never trained."""

from collections import OrderedDict

import pytest
import torch
from torchvision.models.resnet import Bottleneck, ResNet

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.models.recognition import recognise_family
from layerscope.models.trunks.resnet import fit_to_shapes
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features


class DownsampleFirst(Bottleneck):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._modules = OrderedDict(self._modules)
        self._modules.move_to_end("downsample", last=False)


def network(block=DownsampleFirst, stem: int = 8) -> ResNet:
    """Every layer as wide as the stem says, 64 being the usual width."""
    made = ResNet(block, [1, 1, 1, 1])
    fit_to_shapes(made, {n: _scaled(t, stem) for n, t in made.state_dict().items()})
    made.fc = torch.nn.Linear(32 * stem, 10)
    return randomised(made)


def _scaled(tensor: torch.Tensor, stem: int) -> tuple[int, ...]:
    return tuple(n * stem // 64 if i < 2 and n != 3 else n for i, n in enumerate(tensor.shape))


def example(classifier: bool = True, stem: int = 8) -> FamilyExample:
    original = network(stem=stem)

    def forward(images):
        features = resnet_features(original, images)
        if not classifier:
            return features
        return features | {"Q": features["trunk"] @ original.fc.weight.T}

    state = original.state_dict()
    if not classifier:
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    return FamilyExample({"state_dict": dict(state)}, forward)


@pytest.mark.parametrize("classifier", [True, False])
def test_every_cut_equals_a_plain_forward(classifier):
    assert check_family("simclr-v1", example(classifier)) == []


def test_the_width_is_told_from_the_shapes():
    assembly = assemble(Contents(example(stem=16).contents), Declared())
    assert assembly.architecture["width"] == 16


def test_it_says_that_there_is_no_head_and_no_bias():
    assembly = assemble(Contents(example().contents), Declared())
    assert any("no projection head" in note for note in assembly.notes)
    assert "lost" in assembly.ignored["state_dict/fc.bias"]
    assert assembly.preprocessing.std == (1.0, 1.0, 1.0)


def test_torchvisions_order_is_torchvisions():
    state = dict(network(Bottleneck).state_dict())
    assert recognise_family(Contents({"state_dict": state}))[0] == "torchvision"
    with pytest.raises(CheckpointError, match="not of the family"):
        recognise_family(Contents({"state_dict": state}), "simclr-v1")


def test_a_network_that_was_trained_is_no_conversion():
    state = dict(example().contents["state_dict"])
    state["bn1.num_batches_tracked"] = torch.tensor(7)
    assert recognise_family(Contents({"state_dict": state}))[0] == "torchvision"
