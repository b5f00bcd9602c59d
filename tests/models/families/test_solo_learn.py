"""The layout of vturrisi/solo-learn: every method's own modules beside an online classifier."""

from collections import OrderedDict

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import ResNet

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import (
    randomised,
    resnet_features,
    tiny_cifar_resnet,
    tiny_resnet,
    trained,
    vit_features,
)


def resnet(cifar: bool = False) -> nn.Module:
    return tiny_cifar_resnet(padding=2) if cifar else tiny_resnet()


def transformer(width: int = 192, heads: int = 3) -> nn.Module:
    return VisionTransformer(
        img_size=32, patch_size=16, embed_dim=width, depth=2, num_heads=heads, num_classes=0
    )


def simclr(d: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, 24), nn.ReLU(), nn.Linear(24, 12))


def vicreg(d: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(d, 24), nn.BatchNorm1d(24), act()),
        *(nn.Linear(24, 24), nn.BatchNorm1d(24), act()),
        nn.Linear(24, 12),
    )


def byol(d: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 12))


def simsiam(d: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(d, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU()),
        *(nn.Linear(24, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU()),
        *(nn.Linear(24, 12), nn.BatchNorm1d(12, affine=False)),
    )


def nnclr(d: int) -> nn.Sequential:
    return nn.Sequential(*vicreg(d), nn.BatchNorm1d(12))


def moco_v3(d: int, layers: int = 2, last: bool = True) -> nn.Sequential:
    steps, width = [], d
    for number in range(1, layers + 1):
        out = 12 if number == layers else 24
        steps.append(nn.Linear(width, out, bias=False))
        if number < layers:
            steps += [nn.BatchNorm1d(out), nn.ReLU()]
        elif last:
            steps.append(nn.BatchNorm1d(out, affine=False))
        width = out
    return nn.Sequential(*steps)


class DINOHead(nn.Module):
    def __init__(self, d: int, norm: bool):
        super().__init__()
        first, second = nn.Linear(d, 24), nn.Linear(24, 24)
        norms = [[nn.BatchNorm1d(24)] if norm else [] for _ in range(2)]
        self.mlp = nn.Sequential(
            first, *norms[0], nn.GELU(), second, *norms[1], nn.GELU(), nn.Linear(24, 12)
        )
        self.last_layer = nn.Module()
        self.last_layer.weight_g = nn.Parameter(torch.ones(40, 1))
        self.last_layer.weight_v = nn.Parameter(torch.randn(40, 12))


def layers_of(head: nn.Sequential) -> list[nn.Sequential]:
    """Split a Sequential before every Linear but the first."""
    layers: list[list[nn.Module]] = []
    for step in head:
        if isinstance(step, nn.Linear) or not layers:
            layers.append([])
        layers[-1].append(step)
    return [nn.Sequential(*layer) for layer in layers]


def through(features, head, name="head.{}", start="trunk"):
    x = features[start]
    for number, layer in enumerate(layers_of(head), start=1):
        x = features[name.format(number)] = layer(x)
    return x


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def saved(network: nn.Module, old: bool = False) -> dict:
    state = network.state_dict()
    if old:
        state = OrderedDict((k.replace("backbone", "encoder"), v) for k, v in state.items())
    return {
        "epoch": 399,
        "global_step": 1000,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [dict(trained(network))],
        "lr_schedulers": [{"last_epoch": 3}],
    }


class Method(nn.Module):
    """A backbone, a projector, and their momentum copies where the method has any."""

    def __init__(self, projector, *, backbone=None, predictor=None, momentum=False, classes=10):
        super().__init__()
        self.backbone = (backbone or resnet)()
        self.d = 192 if backbone is transformer else 64
        self.classifier = nn.Linear(self.d, classes)
        self.projector = projector(self.d)
        if predictor is not None:
            self.predictor = predictor(12)
        if momentum:
            self.momentum_backbone = (backbone or resnet)()
            self.momentum_projector = projector(self.d)
            self.momentum_classifier = nn.Linear(self.d, classes)


def example(network, *, branch=None, act=None, normalised=False, extra=None, old=False, side=64):
    network = randomised(network)
    momentum = branch == "momentum"
    backbone = network.momentum_backbone if momentum else network.backbone
    projector = network.momentum_projector if momentum else network.projector

    def forward(images):
        of = resnet_features if isinstance(backbone, ResNet) else vit_features
        features = of(backbone, images)
        last = through(features, projector)
        if normalised:
            last = features[f"head.{len(layers_of(projector))}n"] = unit(last)
        if hasattr(network, "predictor") and not momentum:
            features["embedding"] = last
            through(features, network.predictor, "P{}", "embedding")
            del features["embedding"]
        return features | (extra(network, last) if extra else {})

    branches = ("online", "momentum") if hasattr(network, "momentum_backbone") else ("online",)
    declared = Declared(branch=branch, head_act=act)
    return FamilyExample(saved(network, old), forward, side, declared, branches)


def check(*args, **kwargs):
    assert check_family("solo-learn", example(*args, **kwargs)) == []


@pytest.mark.parametrize("old", [False, True])
def test_simclr_of_both_namings(old):
    check(Method(simclr), old=old)


def test_cifar_stem_is_padded_by_two():
    check(Method(simclr, backbone=lambda: resnet(cifar=True)), side=32)


@pytest.mark.parametrize("projector", [nnclr, simsiam], ids=["nnclr", "simsiam"])
def test_methods_with_a_predictor(projector):
    network = Method(projector, predictor=byol)
    network.register_buffer("queue", torch.randn(20, 12))
    network.register_buffer("queue_y", torch.zeros(20, dtype=torch.long))
    network.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
    check(network)


@pytest.mark.parametrize("branch", [None, "momentum"])
def test_byol(branch):
    check(Method(byol, predictor=byol, momentum=True), branch=branch)


@pytest.mark.parametrize("branch", [None, "momentum"])
def test_moco_divides_by_the_length(branch):
    network = Method(simclr, momentum=True)
    network.register_buffer("queue", torch.randn(2, 12, 20))
    network.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
    check(network, branch=branch, normalised=True)


def test_moco_v3_has_transformers_with_twelve_heads():
    def three(d):
        return moco_v3(d, layers=3)

    network = Method(three, backbone=transformer, predictor=moco_v3, momentum=True)
    for backbone in (network.backbone, network.momentum_backbone):
        for block in backbone.blocks:
            block.attn.num_heads, block.attn.head_dim, block.attn.scale = 12, 16, 16**-0.5
    check(network, side=32)


def test_other_methods_transformers_have_heads_of_64_features():
    check(Method(byol, backbone=transformer, predictor=byol), side=32)


def test_moco_v3_with_a_resnet():
    network = Method(moco_v3, predictor=lambda d: moco_v3(d, last=False), momentum=True)
    check(network)


def test_swav_has_weight_normed_prototypes():
    network = Method(byol)
    network.prototypes = nn.Module()
    network.prototypes.weight_g = nn.Parameter(torch.ones(30, 1))
    network.prototypes.weight_v = nn.Parameter(torch.randn(30, 12))

    def prototypes(network, z):
        v = network.prototypes.weight_v
        return {"Q": z @ (network.prototypes.weight_g * v / v.norm(dim=1, keepdim=True)).T}

    check(network, normalised=True, extra=prototypes)


def test_deepcluster_has_several_prototypes():
    network = Method(byol)
    network.prototypes = nn.ModuleList(nn.Linear(12, k, bias=False) for k in (30, 20))
    network.register_buffer("local_memory_index", torch.zeros(9, dtype=torch.long))
    network.register_buffer("local_memory_embeddings", torch.randn(2, 9, 12))

    def prototypes(network, z):
        return {f"Q{i}": layer(z) for i, layer in enumerate(network.prototypes, start=1)}

    check(network, normalised=True, extra=prototypes)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("branch", [None, "momentum"])
def test_dino(norm, branch):
    network = nn.Module()
    network.backbone, network.momentum_backbone = transformer(), transformer()
    network.head, network.momentum_head = DINOHead(192, norm), DINOHead(192, norm)
    network.classifier = nn.Linear(192, 10)
    network = randomised(network)
    backbone = network.momentum_backbone if branch else network.backbone
    head = network.momentum_head if branch else network.head

    def forward(images):
        features = vit_features(backbone, images)
        x = features["head.3n"] = unit(through(features, head.mlp))
        v = head.last_layer.weight_v
        features["Q"] = x @ (head.last_layer.weight_g * v / v.norm(dim=1, keepdim=True)).T
        return features

    contents = saved(network)
    contents["state_dict"]["dino_loss_func.center"] = torch.zeros(1, 40)
    file = FamilyExample(contents, forward, 32, Declared(branch=branch))
    assert check_family("solo-learn", file) == []


@pytest.mark.parametrize("width", [192, 384])
def test_mae_has_no_head_and_transformers_of_12_attention_heads(width):
    network = nn.Module()
    network.backbone, network.classifier = transformer(width, 12), nn.Linear(width, 10)
    network.decoder = nn.Module()
    network.decoder.decoder_embed = nn.Linear(width, 8)
    network = randomised(network)
    file = FamilyExample(
        saved(network),
        lambda images: vit_features(network.backbone, images),
        32,
        branches=("online",),
    )
    assert check_family("solo-learn", file) == []


def test_vicreg_and_vibcreg_are_told_apart_by_the_user_only():
    network = randomised(Method(vicreg))
    with pytest.raises(CheckpointError, match=r"which activation follows projector\.1") as refusal:
        assemble(Contents(saved(network)), Declared())
    assert "--declare head_act=relu" in refusal.value.hint
    check(network, act="relu")
    check(Method(lambda d: vicreg(d, nn.GELU)), act="gelu")


@pytest.mark.parametrize(("method", "act"), [("vicreg", "ReLU"), ("vibcreg", "GELU")])
def test_the_arguments_beside_the_file_tell_the_method(method, act):
    contents = Contents(saved(randomised(Method(vicreg))), beside={"args.json": {"method": method}})
    module = assemble(contents, Declared()).module
    assert [type(m).__name__ for m in module.head.modules()].count(act) == 2


def test_the_head_ends_before_the_whitening_of_vibcreg():
    network = randomised(Method(lambda d: vicreg(d, nn.GELU)))
    file = example(network)
    file.contents["state_dict"] |= {
        "projector.7.weight": torch.ones(1, 12),
        "projector.7.bias": torch.zeros(1, 12),
        "projector.7.running_mean": torch.zeros(2, 6, 1),
        "projector.7.running_wm": torch.eye(6).expand(2, 6, 6),
    }
    assert check_family("solo-learn", file) == []
    notes = assemble(Contents(file.contents), Declared()).notes
    assert any("whitening" in note for note in notes)


@pytest.mark.parametrize(
    ("classes", "beside", "mean"),
    [
        (10, {}, 0.4914),
        (100, {}, 0.5071),
        (100, {"data": {"dataset": "stl10"}}, 0.4914),
        (10, {"dataset": "cifar100"}, 0.5071),
    ],
)
def test_preprocessing_of_the_data_that_it_was_trained_on(classes, beside, mean):
    network = Method(simclr, backbone=lambda: resnet(cifar=True), classes=classes)
    assembly = assemble(
        Contents(saved(randomised(network)), beside={"args.json": beside}), Declared()
    )
    assert assembly.preprocessing.mean[0] == mean
    assert assembly.preprocessing.crop == (96 if beside.get("data") else 32)


def test_a_momentum_branch_that_is_not_there_is_refused():
    with pytest.raises(CheckpointError, match="no momentum weights"):
        assemble(Contents(saved(randomised(Method(simclr)))), Declared(branch="momentum"))


def test_a_backbone_with_a_classifier_alone_is_not_taken_for_one():
    state = {f"backbone.{k}": v for k, v in resnet().state_dict().items()}
    state |= {"classifier.weight": torch.zeros(10, 64), "classifier.bias": torch.zeros(10)}
    with pytest.raises(CheckpointError):
        assemble(Contents({"state_dict": state}), Declared(family="solo-learn"))
