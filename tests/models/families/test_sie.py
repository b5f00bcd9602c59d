"""The layout of facebookresearch/SIE: TensorFlow's padding, one head or two, and probes."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, stage_features, trained

WIDTH = 8


def conv(inputs, outputs, kernel, stride=1):
    padding = kernel // 2 if stride == 1 else 0
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)


class Block(nn.Module):
    def __init__(self, inputs, width, stride, bottleneck, projects):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        channels = (inputs, width, width, outputs) if bottleneck else (inputs, width, outputs)
        for number, kernel in enumerate(kernels, start=1):
            steps = stride if number == 2 else 1
            self.add_module(
                f"conv{number}", conv(channels[number - 1], channels[number], kernel, steps)
            )
            self.add_module(f"bn{number}", nn.BatchNorm2d(channels[number]))
        self.depth, self.stride, self.downsample = len(kernels), stride, None
        if projects:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = x
        for number in range(1, self.depth + 1):
            if number == 2 and self.stride == 2:
                y = functional.pad(y, (0, 1, 0, 1))
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = functional.relu(y) if number < self.depth else y
        return functional.relu(y + (self.downsample(x) if self.downsample else x))


class Backbone(nn.Module):
    def __init__(self, bottleneck=False, blocks=(2, 1, 1, 1)):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 7, 2, 0, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        inputs = WIDTH
        for stage, count in enumerate(blocks, start=1):
            width, layer = WIDTH * 2 ** (stage - 1), nn.Sequential()
            for number in range(count):
                stride = 2 if stage > 1 and number == 0 else 1
                layer.append(Block(inputs, width, stride, bottleneck, projects=number == 0))
                inputs = 4 * width if bottleneck else width
            self.add_module(f"layer{stage}", layer)
        self.width = inputs

    def features(self, images):
        x = functional.relu(self.bn1(self.conv1(functional.pad(images, (2, 3, 2, 3)))))
        x = functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=-1e4), 3, 2)
        return stage_features(self, x)


def projector(*widths):
    layers = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=False))


def per_layer(head, x):
    """Three layers' outputs: activated, activated, plain."""
    first = head[:3](x)
    second = head[3:6](first)
    return first, second, head[6](second)


def network(kind: str, bottleneck: bool) -> nn.Module:
    made = nn.Module()
    made.backbone = Backbone(bottleneck)
    width = made.backbone.width
    equi = {"split": width // 4, "both": width, "equi": width, "plain": 0}[kind]
    inv = {"split": width - equi, "both": width, "equi": 0, "plain": 0}[kind]
    if kind == "plain":
        made.projector = projector(width, 20, 20, 12)
    if inv:
        made.projector_inv = projector(inv, 18, 14, 10)
    if equi:
        made.projector_equi = projector(equi, 8, 8, 6)
        made.predictor = nn.Module()
        made.predictor.hypernet = nn.Linear(4, 36)
    made.evaluator = nn.Module()
    made.evaluator.classifier_repr = nn.Linear(width, 55)
    return randomised(made)


def example(kind: str = "split", bottleneck: bool = False, side: int = 64) -> FamilyExample:
    made = network(kind, bottleneck)

    def forward(images):
        features = made.backbone.features(images)
        x = features["trunk"]
        if kind in ("plain", "equi"):
            head = made.projector if kind == "plain" else made.projector_equi
            return features | {f"head.{n}": y for n, y in enumerate(per_layer(head, x), start=1)}
        inv = made.projector_inv[0].in_features
        reads = {"inv": x, "equi": x}
        if kind == "split":
            reads = {"inv": x[:, :inv], "equi": x[:, inv:]}
            features |= {f"trunk.{name}": read for name, read in reads.items()}
        layers = {
            "inv": per_layer(made.projector_inv, reads["inv"]),
            "equi": per_layer(made.projector_equi, reads["equi"]),
        }
        for number in range(3):
            pair = {name: layers[name][number] for name in ("inv", "equi")}
            features |= {f"head.{number + 1}.{name}": y for name, y in pair.items()}
            features[f"head.{number + 1}"] = torch.cat([*pair.values()], dim=1)
        return features

    state = {f"module.{key}": value for key, value in made.state_dict().items()}
    contents = {"epoch": 100, "model": state, "optimizer": trained(made)}
    return FamilyExample(contents, forward, side=side)


@pytest.mark.parametrize("kind", ["split", "both", "equi", "plain"])
def test_every_cut_equals_a_plain_forward(kind):
    assert check_family("sie", example(kind)) == []


@pytest.mark.parametrize(("kind", "side"), [("split", 64), ("split", 96), ("plain", 32)])
def test_bottlenecks_equal_a_plain_forward(kind, side):
    assert check_family("sie", example(kind, bottleneck=True, side=side)) == []


def test_a_size_that_the_padding_does_not_fit_is_refused():
    with pytest.raises(CheckpointError, match="72 pixels"):
        assemble(Contents(example().contents), Declared(image_size=72))
    assembly = assemble(Contents(example().contents), Declared(image_size=96))
    assert assembly.preprocessing.resize == (96, 96)


def test_the_backbone_alone_equals_a_plain_forward():
    backbone = randomised(Backbone())
    found = FamilyExample(dict(backbone.state_dict()), backbone.features)
    assert check_family("sie", found) == []
    assembly = assemble(Contents(found.contents), Declared())
    assert any("backbone alone" in note for note in assembly.notes)


def test_the_shares_are_off_by_default_and_the_joined_head_is_described():
    assembly = assemble(Contents(example().contents), Declared())
    canonical = [stop.name for stop in assembly.stops if stop.canonical]
    assert canonical[-4:] == ["trunk", "head.1", "head.2", "head.3"]
    assert assembly.head == "inv 3-layer MLP, 18-14-10; equi 3-layer MLP, 8-8-6"
    assert assembly.preprocessing.mean == (0.5016, 0.5037, 0.5060)
    assert "probes" in assembly.ignored["model/module.evaluator.classifier_repr.weight"]
    assert "transformation" in assembly.ignored["model/module.predictor.hypernet.weight"]


def damaged(**tensors: torch.Tensor | None) -> Contents:
    contents = dict(example().contents)
    state = dict(contents["model"])
    for key, value in tensors.items():
        name = "module." + key.replace("__", ".")
        del state[name]
        if value is not None:
            state[name] = value
    return Contents(contents | {"model": state})


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (damaged(projector_inv__0__weight=torch.zeros(18, 5)), "take 5 and 16 features of a"),
        (damaged(projector_equi__0__weight=None), "is not there"),
        (damaged(projector_inv__6__weight=None), "different depths"),
    ],
)
def test_heads_that_do_not_fit_are_refused(contents, says):
    with pytest.raises(CheckpointError, match=says):
        assemble(contents, Declared())
