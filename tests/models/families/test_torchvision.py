"""Real objects of torchvision, saved by torch, judge every cut."""

import hashlib

import pytest
import torch
from torchvision import models

from layerscope.errors import CheckpointError
from layerscope.models import load
from layerscope.models.contents import Contents
from layerscope.models.families import families
from layerscope.models.trunks import published
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features
from tests.models.families.zoo_truth import (
    each_network,
    expanded,
    judge,
    library_modules,
    nothing_crosses,
    nothing_overwrites,
)

_RESNET50 = "stem layer1.0-2 layer2.0-3 layer3.0-5 layer4.0-2"
NETWORKS = {
    "resnet18": (64, ["fc"] * 2, "stem layer1.0-1 layer2.0-1 layer3.0-1 layer4.0-1"),
    "resnext50_32x4d": (64, ["fc"] * 2, _RESNET50),
    "wide_resnet50_2": (64, ["fc"] * 2, _RESNET50),
    "densenet121": (
        64,
        ["classifier"] * 2,
        "stem features.denseblock1 features.transition1 features.denseblock2 "
        "features.transition2 features.denseblock3 features.transition3 features.denseblock4",
    ),
    "mobilenet_v2": (64, ["classifier.1"] * 2, "stem features.1-17"),
    "mobilenet_v3_small": (
        64,
        ["classifier.0", "classifier.1", "classifier.3", "classifier.3"],
        "stem features.1-11",
    ),
    "efficientnet_b0": (
        64,
        ["classifier.1"] * 2,
        "stem features.1.0 features.2.0-1 features.3.0-1 features.4.0-2 features.5.0-2 "
        "features.6.0-3 features.7.0",
    ),
    "regnet_y_400mf": (
        64,
        ["fc"] * 2,
        " ".join(
            ["stem"]
            + [
                f"trunk_output.block{stage}.block{stage}-{i}"
                for stage, depth in enumerate((1, 3, 6, 6), start=1)
                for i in range(depth)
            ]
        ),
    ),
    "convnext_tiny": (
        64,
        ["classifier.2"] * 2,
        "stem features.1.0-2 features.2 features.3.0-2 features.4 features.5.0-8 features.6 "
        "features.7.0-2",
    ),
    "swin_t": (
        64,
        ["head"] * 2,
        "embed features.1.0-1 features.2 features.3.0-1 features.4 features.5.0-5 features.6 "
        "features.7.0-1",
    ),
    "vit_b_32": (
        224,
        ["heads.head"] * 2,
        " ".join(["embed", *(f"encoder.layers.encoder_layer_{i}" for i in range(12))]),
    ),
    "vgg11": (
        64,
        ["classifier.0", "classifier.1", "classifier.3", "classifier.4", *["classifier.6"] * 2],
        "features.2 features.5 features.7 features.10 features.12 features.15 features.17",
    ),
    "alexnet": (
        64,
        ["classifier.1", "classifier.2", "classifier.4", "classifier.5", *["classifier.6"] * 2],
        "features.2 features.5 features.7 features.9",
    ),
    "shufflenet_v2_x0_5": (64, ["fc"] * 2, "stem stage2.0-3 stage3.0-7 stage4.0-3"),
    "mnasnet0_5": (
        64,
        ["classifier.1"] * 2,
        "stem layers.8.0-2 layers.9.0-2 layers.10.0-2 layers.11.0-1 layers.12.0-3 layers.13.0",
    ),
}
"""By architecture: the side of the images, the classifier's layers as pairs of modules (what reads
their input, what gives their output), and the cuts before ``trunk``."""
SLOW = (
    "vgg11",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "densenet121",
    "mobilenet_v2",
    "efficientnet_b0",
    "convnext_tiny",
    "alexnet",
    "mnasnet0_5",
    "vit_b_32",
)
"""What has a sibling of its kind among the others, or costs the most."""

CHECKED_FOR_CROSSINGS = 6


@each_network(NETWORKS, SLOW)
def test_every_cut_is_what_torchvision_computes(name, tmp_path):
    side, classifier, cuts = NETWORKS[name]
    network = randomised(models.get_model(name))
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    model = load(file)
    head = [f"head.{i + 1}" for i in range(len(classifier) // 2)]
    assert [cut.name for cut in model.cuts] == [*expanded(cuts), "trunk", *head]
    assert model.checkpoint.family == "torchvision"
    assert not [key for key in model.ignored if "num_batches_tracked" not in key]
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    modules = library_modules(model, classifier)
    judge(model, network, images, modules)
    nothing_overwrites(model, images)
    inner = [m for cut, m in modules.items() if cut != "trunk" and not cut.startswith("head")]
    step = 1 if side == 64 else len(inner) // CHECKED_FOR_CROSSINGS
    nothing_crosses(network, images, inner[::step])


def mlp_example() -> FamilyExample:
    """A network whose classifier has two layers, the first with a hard swish."""
    network = randomised(models.mobilenet_v3_small(num_classes=7))

    def forward(images):
        x = network.features[0](images)
        features = {"stem": x.mean((2, 3))}
        for number, block in enumerate(network.features[1:-1], start=1):
            x = block(x)
            features[f"features.{number}"] = x.mean((2, 3))
        x = features["trunk"] = network.features[-1](x).mean((2, 3))
        x = features["head.1"] = torch.nn.functional.hardswish(network.classifier[0](x))
        features["head.2"] = network.classifier[3](x)
        return features

    return FamilyExample(dict(network.state_dict()), forward)


def resnet_example(classes: int, wrapper: str = "") -> FamilyExample:
    network = randomised(models.resnet18(num_classes=classes or 1))
    if not classes:
        network.fc = torch.nn.Identity()

    def forward(images):
        features = resnet_features(network, images)
        return features | ({"head.1": network.fc(features["trunk"])} if classes else {})

    state = {wrapper + key: value for key, value in network.state_dict().items()}
    root = {"arch": "resnet18", "state_dict": state} if wrapper else state
    return FamilyExample(root, forward)


@pytest.mark.parametrize(
    ("example", "given"),
    [
        (mlp_example, ()),
        (resnet_example, (5,)),
        (resnet_example, (0,)),
        (resnet_example, (5, "module.")),
    ],
    ids=["mlp", "resnet", "resnet without fc", "the ImageNet example"],
)
def test_a_file_with_a_classifier_or_without_conforms(example, given):
    assert check_family("torchvision", example(*given)) == []


def test_a_projector_beside_a_resnet_is_not_torchvision_s():
    state = models.resnet18().state_dict()
    for more in ("projection_head.0.weight", "projector.0.weight", "fc.0.weight"):
        contents = Contents(dict(state) | {more: torch.zeros(4, 512)})
        assert families["torchvision"].recognise(contents) == ""


def test_an_architecture_of_another_library_is_not_torchvision_s():
    state = dict(models.resnet18().state_dict())
    recognise = families["torchvision"].recognise
    assert recognise(Contents({"state_dict": state}))
    assert recognise(Contents({"state_dict": state, "arch": "resnetblur18"})) == ""
    config = {"config.json": {"architecture": "resnet18"}}
    assert recognise(Contents(state, beside=config)) == ""


def test_published_weights_are_known_by_their_digits(tmp_path, monkeypatch):
    file = tmp_path / "anything.pth"
    torch.save(models.resnet18().state_dict(), file)
    assert "does not tell" in " ".join(load(file).notes)
    weights = models.ResNet18_Weights.IMAGENET1K_V1
    entry = published.Published(
        published.Architecture("torchvision", "resnet18"), str(weights), weights
    )
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(published, "_published", lambda one: ((digits, entry),))
    model = load(file)
    assert "ResNet18_Weights.IMAGENET1K_V1" in " ".join(model.notes)
    assert model.checkpoint.preprocessing.resize == 256


def test_the_digits_and_the_transforms_are_torchvision_s_own():
    found = dict(published._published(published.Architecture("torchvision", "resnet50")))
    assert found["11ad3fa6"].name == "ResNet50_Weights.IMAGENET1K_V2"
    preprocessing = found["11ad3fa6"].preprocessing
    assert (preprocessing.resize, preprocessing.crop) == (232, 224)


@pytest.mark.parametrize("name", ["googlenet"])
def test_a_network_that_may_normalise_its_images_itself_has_to_be_declared(name, tmp_path):
    network = models.googlenet(weights=None, init_weights=False, aux_logits=True)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="transform_input"):
        load(tmp_path / "weights.pth")


def test_a_classifier_of_the_map_s_places_is_left_out_for_a_reason(tmp_path):
    network = randomised(models.squeezenet1_1())
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = load(tmp_path / "weights.pth")
    assert model.cuts[-1].name == "trunk"
    assert {"classifier.1.weight", "classifier.1.bias"} == set(model.ignored)
    images = torch.randn(2, 3, 64, 64)
    modules = library_modules(model, [])
    modules["trunk"] = "features"
    judge(model, network, images, {**modules, "trunk": "features.12"})
