import warnings
from dataclasses import dataclass, replace

import pytest
import torch
import torchvision
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models import load, open_taps
from layerscope.models.cuts import Stop, cut_points, trace
from layerscope.types import CutPoint


@dataclass
class Model:
    module: nn.Module
    cuts: tuple[CutPoint, ...]
    checkpoint: None = None


class Overwriting(nn.Module):
    """Every tapped output is overwritten by the operation that follows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.flat = nn.Flatten()
        self.linear = nn.Linear(4 * 36, 5)

    def forward(self, images):
        x = self.relu(self.norm(self.conv(images)))
        x = self.linear(self.flat(x))
        x += 100
        return x.relu_()


def overwriting():
    torch.manual_seed(0)
    module = Overwriting().eval()
    stops = [Stop("norm", "norm", "trunk"), Stop("linear", "linear", "head")]
    return Model(module, cut_points(trace(module, 8), stops))


def test_a_later_in_place_operation_cannot_change_what_was_captured():
    model, images = overwriting(), torch.randn(2, 3, 8, 8)
    with torch.no_grad(), open_taps(model, model.cuts) as taps:
        captured = taps.run(images)
        norm = model.module.norm(model.module.conv(images))
        relu = norm.clamp(min=0)
        linear = model.module.linear(relu.flatten(1))
    torch.testing.assert_close(captured["norm"], norm.mean((2, 3)))
    torch.testing.assert_close(captured["linear"], linear)
    assert (norm < 0).any()


def test_hooks_are_gone_after_use_and_after_an_error():
    model = overwriting()
    with open_taps(model, model.cuts):
        pass
    with pytest.raises(RuntimeError), open_taps(model, model.cuts) as taps:
        taps.run(torch.randn(2, 5, 8, 8))
    assert not any(module._forward_hooks for module in model.module.modules())


def test_every_call_of_a_reused_module_is_a_layer_of_its_own():
    network = torchvision.models.resnet18().eval()
    stops = [
        Stop("inner", "layer1.0.relu", "trunk"),
        Stop("outer", "layer1.0.relu#2", "trunk"),
        Stop("block", "layer1.0", "trunk"),
    ]
    model = Model(network, cut_points(trace(network, 64), stops))
    with torch.no_grad(), open_taps(model, model.cuts) as taps:
        captured = taps.run(torch.randn(2, 3, 64, 64))
    assert torch.equal(captured["outer"], captured["block"])
    assert not torch.equal(captured["inner"], captured["outer"])


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "resnext50_32x4d",
        pytest.param("wide_resnet50_2", marks=pytest.mark.slow),
    ],
)
def test_features_of_a_torchvision_file_equal_a_plain_forward(name, tmp_path):
    torch.manual_seed(0)
    original = getattr(torchvision.models, name)().eval()
    torch.save(original.state_dict(), tmp_path / f"{name}.pth")
    model, images = load(tmp_path / f"{name}.pth"), torch.randn(2, 3, 64, 64)
    with torch.no_grad(), open_taps(model, model.cuts) as taps:
        captured = taps.run(images)
        x = original.maxpool(original.relu(original.bn1(original.conv1(images))))
        torch.testing.assert_close(captured["stem"], x.mean((2, 3)))
        for stage in (original.layer1, original.layer2, original.layer3, original.layer4):
            for block in stage:
                x = block(x)
        torch.testing.assert_close(captured["trunk"], x.mean((2, 3)))
        torch.testing.assert_close(captured["head.1"], original(images))
    assert list(captured) == [cut.name for cut in model.cuts]


def test_a_cut_that_the_forward_does_not_reach_is_an_error():
    model = overwriting()
    ghost = replace(model.cuts[0], name="ghost", module="norm#2")
    with open_taps(model, [ghost]) as taps, pytest.raises(CheckpointError, match="ghost"):
        taps.run(torch.randn(2, 3, 8, 8))


def test_wrappers_that_lose_features_are_refused():
    model = overwriting()
    wrapped = Model(nn.DataParallel(model.module), model.cuts)
    with pytest.raises(CheckpointError, match="DataParallel"), open_taps(wrapped, model.cuts):
        pass
    with warnings.catch_warnings():
        # torch 2.11 warns of its own internals when the compiler is imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = Model(torch.compile(model.module), model.cuts)
    with pytest.raises(CheckpointError, match="compiled"), open_taps(compiled, model.cuts):
        pass


def test_a_cut_is_captured_in_several_poolings_in_one_pass():
    model, images = overwriting(), torch.randn(2, 3, 8, 8)
    norm = model.cuts[0]
    chosen = [norm, replace(norm, pooling="max"), model.cuts[1]]
    with torch.no_grad(), open_taps(model, chosen) as taps:
        captured = taps.run_poolings(images)
        expected = model.module.norm(model.module.conv(images))
        with pytest.raises(CheckpointError, match="norm is captured in several poolings"):
            taps.run(images)
    assert list(captured) == ["norm@mean", "norm@max", "linear@none"]
    torch.testing.assert_close(captured["norm@mean"], expected.mean((2, 3)))
    torch.testing.assert_close(captured["norm@max"], expected.amax((2, 3)))
    assert (expected.amax((2, 3)) < 100).all()


@pytest.mark.parametrize("pooling", ["mean", "cls", "cls+mean", "max", "flat:9k", "none"])
def test_no_pooling_of_tokens_shares_memory_with_what_is_overwritten_later(pooling):
    class Shifting(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Flatten(2)
            self.after = nn.ReLU(inplace=True)

        def forward(self, images):
            tokens = self.tokens(images)
            kept = tokens.clone()
            self.after(tokens.sub_(1000))
            self.kept = kept
            return tokens

    module = Shifting()
    # The 3 channels are 3 tokens of 289 numbers; two patches would form no square.
    prefix = 2 if pooling == "flat:9k" else 1
    stop = Stop("tokens", "tokens", "trunk", tokens=prefix, pooling=pooling)
    model = Model(module, cut_points(trace(module, 17), [stop]))
    with torch.no_grad(), open_taps(model, model.cuts) as taps:
        captured = taps.run(torch.randn(2, 3, 17, 17))["tokens"]
    kept = module.kept
    by_hand = {
        "mean": lambda: kept[:, prefix:].mean(1),
        "cls": lambda: kept[:, 0],
        "cls+mean": lambda: torch.cat([kept[:, 0], kept[:, prefix:].mean(1)], 1),
        "max": lambda: kept[:, prefix:].amax(1),
        "flat:9k": lambda: kept[:, 2],
        "none": lambda: kept.flatten(1),
    }
    torch.testing.assert_close(captured, by_hand[pooling]())
