"""Networks put together as lightly's examples do, from its own modules and by hand."""

import copy
import warnings

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

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

heads = pytest.importorskip("lightly.models.modules.heads")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lightly.models import ResNetGenerator
    from lightly.models.modules import (
        MaskedVisionTransformerTIMM,
        MaskedVisionTransformerTorchvision,
    )


def resnet(small: bool = False) -> nn.Module:
    return tiny_cifar_resnet() if small else tiny_resnet()


def children(network: nn.Module) -> nn.Module:
    return nn.Sequential(*list(network.children())[:-1])


def sequence_features(backbone, images, first=4):
    """Features of a ResNet's children, one after the other; layer1 is the child ``first``."""
    features, x = {}, images
    for name, child in ((int(name), child) for name, child in backbone.named_children()):
        if first <= name < first + 4:
            for number, block in enumerate(child):
                x = block(x)
                features[f"layer{name - first + 1}.{number}"] = x.mean((2, 3))
        else:
            x = child(x)
        if name == first - 1:
            features["stem"] = x.mean((2, 3))
    return features | {"trunk": x.flatten(1)}


def generated_features(backbone, images):
    """The same of lightly's own ResNet, whose forward has no ReLU after bn1."""
    return sequence_features(backbone, images, first=2)


def timm_transformer(classes: int = 0) -> nn.Module:
    return VisionTransformer(
        img_size=32, patch_size=16, embed_dim=192, depth=2, num_heads=3, num_classes=classes
    )


def through(features, sequential, name="head.{}", start="trunk"):
    """The outputs of the steps of lightly's own Sequential that end its layers."""
    x, number = features[start], 0
    steps = list(sequential)
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        x = step(x)
        if after is None or isinstance(after, nn.Linear):
            number += 1
            features[name.format(number)] = x
    return x, number


def whole(head, name, features, depth):
    """What lightly's own call of the head returns has to be the last of its layers."""
    torch.testing.assert_close(head(features["trunk"]), features[f"{name}{depth}"])


def example(network, backbone, head, *, of=None, branches=("online",), declared=None, side=64):
    network = randomised(network.train())
    state = {key: value.clone() for key, value in network.state_dict().items()}
    network.eval()
    declared = declared or Declared()
    online = declared.branch != "momentum"

    def forward(images):
        if of is not None:
            features = of(network.get_submodule(backbone), images)
        else:
            features = resnet_features(network.get_submodule(backbone), images)
        torch.testing.assert_close(
            network.get_submodule(backbone)(images).flatten(1), features["trunk"]
        )
        projection = network.get_submodule(head)
        last, depth = through(features, projection.layers)
        prototypes = getattr(network, "prototypes", None)
        if hasattr(projection, "last_layer") or isinstance(prototypes, heads.SwaVPrototypes):
            last = features[f"head.{depth}n"] = nn.functional.normalize(last, dim=1)
        else:
            whole(projection, "head.", features, depth)
        if online and hasattr(network, "prediction_head"):
            read = {"z": last}
            through(read, network.prediction_head.layers, "P{}", "z")
            features |= {name: x for name, x in read.items() if name != "z"}
        if hasattr(projection, "last_layer"):
            features["Q"] = projection.last_layer(last)
            torch.testing.assert_close(projection(features["trunk"]), features["Q"])
        if isinstance(prototypes, heads.SwaVPrototypes):
            scores = prototypes(last)
            scores = scores if isinstance(scores, list) else [scores]
            single = len(scores) == 1
            features |= {f"Q{'' if single else n}": q for n, q in enumerate(scores, start=1)}
        return features

    contents = {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": state,
        "optimizer_states": [dict(trained(network))],
        "hyper_parameters": {"batch_size_per_device": 8, "num_classes": 10},
    }
    return FamilyExample(contents, forward, side, declared, branches)


def check(*args, **kwargs):
    assert check_family("lightly", example(*args, **kwargs)) == []


class Net(nn.Module):
    def __init__(self, backbone, head, prediction=None):
        super().__init__()
        self.backbone, self.projection_head = backbone, head
        if prediction is not None:
            self.prediction_head = prediction


HEADS = {
    "simclr": lambda: heads.SimCLRProjectionHead(64, 24, 12),
    "simclr-v2": lambda: heads.SimCLRProjectionHead(64, 24, 12, num_layers=3, batch_norm=False),
    "barlow": lambda: heads.BarlowTwinsProjectionHead(64, 24, 12),
    "vicreg": lambda: heads.VICRegProjectionHead(64, 24, 12, num_layers=2),
    "nnclr": lambda: heads.NNCLRProjectionHead(64, 24, 12),
    "mmcr": lambda: heads.MMCRProjectionHead(64, 24, 12),
}


@pytest.mark.parametrize("head", HEADS)
def test_heads_on_a_sequential_backbone(head):
    network = Net(children(resnet()), HEADS[head]())
    check(network, "backbone", "projection_head", of=sequence_features)


def test_a_named_backbone_as_in_the_benchmarks():
    network = Net(resnet(), heads.SimCLRProjectionHead(64, 24, 12))
    network.online_classifier = nn.Linear(64, 10)
    network.criterion = nn.Module()
    network.criterion.memory_bank = nn.Module()
    network.criterion.memory_bank.register_buffer("bank", torch.randn(12, 30))
    check(network, "backbone", "projection_head")


def test_a_plain_state_dict_behind_wrappers():
    file = example(
        Net(children(resnet()), heads.SimCLRProjectionHead(64, 24, 12)),
        *("backbone", "projection_head"),
        of=sequence_features,
    )
    state = {f"_orig_mod.module.{k}": v for k, v in file.contents["state_dict"].items()}
    wrapped = FamilyExample(state, file.forward, branches=("online",))
    assert check_family("lightly", wrapped) == []


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_a_small_stem_has_to_be_declared(stem):
    network = Net(resnet(small=True), heads.SimCLRProjectionHead(64, 24, 12))
    if stem == "imagenet":
        network.backbone.conv1.stride = (2, 2)
        network.backbone.maxpool = nn.MaxPool2d(3, 2, 1)
    with pytest.raises(CheckpointError, match="stride"):
        assemble(Contents(network.state_dict()), Declared())
    check(network, "backbone", "projection_head", declared=Declared(stem=stem))


@pytest.mark.parametrize(("depth", "splits"), [("resnet-9", 0), ("resnet-9", 2), ("resnet-50", 0)])
def test_lightlys_own_resnet_for_small_images(depth, splits):
    generated = ResNetGenerator(depth, width=0.125, num_splits=splits)
    width = generated.linear.in_features
    backbone = nn.Sequential(*list(generated.children())[:-1], nn.AdaptiveAvgPool2d(1))
    network = Net(backbone, heads.SimCLRProjectionHead(width, 24, 12))
    check(network, "backbone", "projection_head", of=generated_features, side=32)
    assembly = assemble(Contents(network.state_dict()), Declared())
    assert (assembly.preprocessing.resize, assembly.preprocessing.crop) == (32, 32)


MOMENTUM = [
    ("backbone_momentum", "projection_head_momentum"),
    ("teacher_backbone", "teacher_projection_head"),
    ("key_backbone", "key_projection_head"),
]


def with_momentum(head, prediction=None, names=MOMENTUM[0]):
    network = Net(children(resnet()), head, prediction)
    setattr(network, names[0], children(resnet()))
    setattr(network, names[1], copy.deepcopy(head))
    return network


@pytest.mark.parametrize("names", MOMENTUM, ids=["momentum", "teacher", "key"])
@pytest.mark.parametrize("branch", [None, "momentum"])
def test_byol_of_examples_and_benchmarks(names, branch):
    network = with_momentum(
        heads.BYOLProjectionHead(64, 24, 12), heads.BYOLPredictionHead(12, 24, 12), names
    )
    pair = ("backbone", "projection_head") if branch is None else names
    check(
        *(network, *pair),
        of=sequence_features,
        branches=("online", "momentum"),
        declared=Declared(branch=branch),
    )


@pytest.mark.parametrize("branch", [None, "momentum"])
@pytest.mark.parametrize("norm", [False, True])
def test_moco(branch, norm):
    head = heads.MoCoProjectionHead(64, 24, 12, num_layers=3 if norm else 2, batch_norm=norm)
    pair = ("backbone", "projection_head") if branch is None else MOMENTUM[0]
    check(
        *(with_momentum(head), *pair),
        of=sequence_features,
        branches=("online", "momentum"),
        declared=Declared(branch=branch),
    )


@pytest.mark.parametrize(
    ("head", "prediction"),
    [("SimSiamProjectionHead", "SimSiamPredictionHead"), ("SMoGProjectionHead", None)],
)
def test_heads_that_end_in_a_norm_without_weights(head, prediction):
    predictor = getattr(heads, prediction)(12, 8, 12) if prediction else None
    network = Net(children(resnet()), getattr(heads, head)(64, 24, 12), predictor)
    if head == "SMoGProjectionHead":
        network.smog = heads.SMoGPrototypes(torch.randn(6, 12), 0.99)
    check(network, "backbone", "projection_head", of=sequence_features)


@pytest.mark.parametrize("prototypes", [30, [30, 20]])
def test_swav(prototypes):
    network = Net(children(resnet()), heads.SwaVProjectionHead(64, 24, 12))
    network.prototypes = heads.SwaVPrototypes(12, prototypes)
    check(network, "backbone", "projection_head", of=sequence_features)


def test_densecl_has_a_global_head():
    network = nn.Module()
    network.backbone = children(resnet())
    network.projection_head_global = heads.DenseCLProjectionHead(64, 24, 12)
    network.projection_head_local = heads.DenseCLProjectionHead(64, 24, 12)
    network.backbone_momentum = copy.deepcopy(network.backbone)
    network.projection_head_global_momentum = copy.deepcopy(network.projection_head_global)
    network.projection_head_local_momentum = copy.deepcopy(network.projection_head_local)
    check(
        *(network, "backbone", "projection_head_global"),
        of=sequence_features,
        branches=("online", "momentum"),
    )


STUDENTS = {
    "examples": (("student_backbone", "student_head"), ("teacher_backbone", "teacher_head")),
    "benchmarks": (
        ("student_backbone", "student_projection_head"),
        ("backbone", "projection_head"),
    ),
    "imagenette": (("backbone", "head"), ("teacher_backbone", "teacher_head")),
}


def dino(names, norm, masked):
    network = nn.Module()
    for backbone, head in names:
        body = timm_transformer(10 if masked else 0)
        setattr(network, backbone, MaskedVisionTransformerTIMM(body) if masked else body)
        last = heads.DINOProjectionHead(192, 24, 12, 40, batch_norm=norm)
        setattr(network, head, last)
    return network


@pytest.mark.parametrize("names", STUDENTS)
@pytest.mark.parametrize("branch", ["online", "momentum"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_dino_on_a_transformer(names, branch, norm):
    masked = names == "benchmarks"
    pair = STUDENTS[names][branch == "momentum"]
    check(
        *(dino(STUDENTS[names], norm, masked), *pair),
        of=lambda body, images: vit_features(body.vit if masked else body, images),
        branches=("online", "momentum"),
        declared=Declared(branch=branch),
        side=32,
    )


@pytest.mark.parametrize("names", STUDENTS)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_dino_is_its_teacher_unless_the_student_is_asked_for(names):
    contents = Contents(randomised(dino(STUDENTS[names], False, False)).state_dict())
    usual, teacher, student = (
        assemble(contents, Declared(branch=branch)) for branch in (None, "momentum", "online")
    )
    assert usual.keys == teacher.keys
    assert not set(usual.keys) & set(student.keys)


@pytest.mark.parametrize("branch", ["online", "momentum"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_dinov2_has_a_head_for_images_and_one_for_patches(branch):
    network = nn.Module()
    for side in ("student", "teacher"):
        body = VisionTransformer(
            *(32, 16), embed_dim=192, depth=1, num_heads=3, num_classes=0, init_values=1e-5
        )
        setattr(network, f"{side}_backbone", MaskedVisionTransformerTIMM(body))
        both = nn.Module()
        both.dino_head = heads.DINOv2ProjectionHead(192, 24, 12, 40)
        both.ibot_head = heads.DINOv2ProjectionHead(192, 24, 12, 40)
        setattr(network, f"{side}_head", both)
    side = "student" if branch == "online" else "teacher"
    check(
        *(network, f"{side}_backbone", f"{side}_head.dino_head"),
        of=lambda body, images: vit_features(body.vit, images),
        branches=("online", "momentum"),
        declared=Declared(branch=branch),
        side=32,
    )


def torchvision_features(body, images):
    """Class tokens of torchvision's transformer, by its own modules."""
    network = body.vit
    x = network._process_input(images)
    x = torch.cat([network.class_token.expand(len(x), -1, -1), x], dim=1)
    x = x + network.encoder.pos_embedding
    features = {"embed": x[:, 1:].mean(1)}
    for number, layer in enumerate(network.encoder.layers):
        x = layer(x)
        features[f"blocks.{number}"] = x[:, 0].clone()
    return features | {"trunk": network.encoder.ln(x)[:, 0]}


def msn():
    network = nn.Module()
    for prefix in ("", "anchor_"):
        body = TorchvisionTransformer(32, 16, 2, 3, 192, 384)
        setattr(network, f"{prefix}backbone", MaskedVisionTransformerTorchvision(vit=body))
        head = heads.MSNProjectionHead(192, 24, 12)
        setattr(network, f"{prefix}projection_head", head)
    network.prototypes = nn.Linear(12, 30, bias=False).weight
    return network


@pytest.mark.parametrize("branch", ["online", "momentum"])
def test_msn_has_a_gelu(branch):
    prefix = "anchor_" if branch == "online" else ""
    file = example(
        *(msn(), f"{prefix}backbone", f"{prefix}projection_head"),
        of=torchvision_features,
        branches=("online", "momentum"),
        declared=Declared(branch=branch),
        side=32,
    )
    assert check_family("lightly", file) == []


@pytest.mark.parametrize(("head", "act"), [("LeJEPA", "relu"), ("MSN", "gelu")])
def test_heads_on_a_transformer_that_only_the_user_can_tell_apart(head, act):
    network = Net(timm_transformer(), getattr(heads, f"{head}ProjectionHead")(192, 24, 12))
    with pytest.raises(CheckpointError, match="which activation"):
        assemble(Contents(network.state_dict()), Declared())
    check(
        *(network, "backbone", "projection_head"),
        of=vit_features,
        declared=Declared(head_act=act),
        side=32,
    )


def test_simclr_on_a_transformer_ends_in_a_norm_as_no_head_with_a_gelu_does():
    network = Net(timm_transformer(), heads.SimCLRProjectionHead(192, 24, 12))
    check(network, "backbone", "projection_head", of=vit_features, side=32)


def test_a_momentum_branch_that_is_not_there_is_refused():
    network = Net(children(resnet()), heads.SimCLRProjectionHead(64, 24, 12))
    with pytest.raises(CheckpointError, match="no momentum weights"):
        assemble(Contents(network.state_dict()), Declared(branch="momentum"))


@pytest.mark.parametrize("statistic", [torch.ones(48, dtype=torch.int64), torch.ones(48) > 0])
def test_a_statistic_that_is_no_number_is_refused(statistic):
    network = Net(children(resnet()), heads.SimCLRProjectionHead(64, 24, 12))
    state = dict(network.state_dict())
    name = next(name for name in state if name.startswith("projection_head.layers.1.running_mean"))
    state[name] = statistic
    with pytest.raises(CheckpointError, match=r"head|norm"):
        assemble(Contents(state), Declared())
