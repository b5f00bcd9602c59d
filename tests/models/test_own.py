"""A user's own network by ``arch``: strictly filled, walked in call order, never guessed at."""

import sys

import pytest
import torch
from torch import nn

from layerscope.errors import CheckpointError, UnknownNameError
from layerscope.models import load, open_taps, select_cuts
from layerscope.models.declared import Declared
from tests.models.families.truth import randomised


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.BatchNorm2d(outputs)
        self.first = nn.Conv2d(inputs, outputs, 3, 2, 1)

    def forward(self, x):
        return self.relu(self.last(self.first(x)))


class Net(nn.Module):
    """Registers its head before its trunk, and calls one activation twice."""

    def __init__(self):
        super().__init__()
        self.projector = nn.Sequential(nn.Linear(8, 6), nn.ReLU(inplace=True), nn.Linear(6, 4))
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.blocks = nn.ModuleList([Block(5, 8), Block(8, 8)])
        self.stem = nn.Conv2d(3, 5, 3, 2, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, images):
        x = self.act(self.stem(images))
        for block in self.blocks:
            x = block(x)
        x = self.drop(self.act(self.pool(x).flatten(1)))
        return self.projector(x)


class Wrapped(nn.Module):
    """A network in a network, as projects have it."""

    def __init__(self):
        super().__init__()
        self.encoder = Net()
        self.encoder.projector = nn.Identity()
        self.projector = nn.Linear(8, 4)

    def forward(self, images):
        return self.projector(self.encoder(images))


class Tokens(nn.Module):
    def __init__(self, depth=2, registers=0, told=True, class_token=True):
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(3, 6, 16, 16), nn.Flatten(2), Turn())
        leading = registers + class_token
        self.prefix = nn.Parameter(torch.randn(1, leading, 6))
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(depth)])
        if told:
            self.num_prefix_tokens = leading
            self.cls_token = self.prefix[:, :1] if class_token else None

    def forward(self, images):
        x = self.embed(images)
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)
        for layer in self.layers:
            x = layer(x)
        return x


class Turn(nn.Module):
    def forward(self, x):
        return x.mT


class ChannelsLast(nn.Module):
    """A map (b, h, w, c) that only a trace can tell from (b, c, h, w)."""

    def __init__(self, side=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 4, 4)
        self.turn = Permute()
        self.act = nn.GELU()
        self.side = side

    def forward(self, images):
        assert self.side in (None, images.shape[3])
        return self.act(self.turn(self.conv(images)))


class Permute(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


def fails():
    raise KeyError("no such width")


def needs(width):
    return width


def number():
    return 7


constant = 7


def unmarked():
    return Tokens(told=False)


def registers_only():
    return Tokens(registers=2, class_token=False)


def fixed():
    return ChannelsLast(side=64)


def fixed_and_told():
    network = ChannelsLast(side=64)
    network.output_fmt = "NHWC"
    return network


HERE = __name__


def declare(factory="Net", **options):
    return Declared(arch=f"{HERE}:{factory}", **({"image_size": 64} | options))


@pytest.fixture
def save(tmp_path):
    def write(network, container=lambda state: state):
        path = tmp_path / "mine.pth"
        torch.save(container(dict(network.state_dict())), path)
        return path

    return write


def captured(model, images):
    with torch.no_grad(), open_taps(model, model.cuts) as taps:
        return taps.run(images)


def test_layers_are_cut_in_call_order_and_equal_a_plain_forward(save):
    network, images = randomised(Net()), torch.randn(2, 3, 64, 64)
    model = load(save(network), declare(head_from="projector"))
    names = ["stem", "act", "blocks.0", "blocks.1", "pool", "trunk"]
    head = ["projector.0", "projector.1", "projector.2"]
    assert [cut.name for cut in model.cuts] == names + head
    assert [cut.part for cut in model.cuts] == ["trunk"] * 6 + ["head"] * 3
    assert model.cuts[5].module == "act#2"
    assert model.checkpoint.head == "3 layers from projector"
    assert model.checkpoint.family == "own"
    assert set(model.keys) == set(network.state_dict())
    found = captured(model, images)
    with torch.no_grad():
        x = network.stem(images)
        torch.testing.assert_close(found["stem"], x.mean((2, 3)))
        x = x.clamp(min=0)
        torch.testing.assert_close(found["act"], x.mean((2, 3)))
        for i, block in enumerate(network.blocks):
            x = block.last(block.first(x)).clamp(min=0)
            torch.testing.assert_close(found[f"blocks.{i}"], x.mean((2, 3)))
        x = x.mean((2, 3)).clamp(min=0)
        torch.testing.assert_close(found["trunk"], x)
        first = network.projector[0](x)
        torch.testing.assert_close(found["projector.0"], first)
        torch.testing.assert_close(found["projector.2"], network.projector[2](first.clamp(min=0)))


@pytest.mark.parametrize(
    "container",
    [
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3},
        lambda state: {"model": {f"module._orig_mod.{k}": v for k, v in state.items()}},
    ],
)
def test_containers_and_wrappers_are_taken_off(save, container):
    network, images = randomised(Net()), torch.randn(1, 3, 64, 64)
    model = load(save(network, container), declare())
    with torch.no_grad():
        torch.testing.assert_close(model.module(images), network(images))


def test_a_prefix_that_is_the_networks_own_stays(save):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Conv2d(3, 4, 3))

        def forward(self, images):
            return self.model(images)

    sys.modules[HERE].Named = Named
    model = load(save(randomised(Named())), declare("Named"))
    assert list(model.keys.values()) == ["model.0.weight", "model.0.bias"]


def test_without_head_from_all_is_trunk_and_that_is_said(save):
    model = load(save(randomised(Net())), declare())
    assert {cut.part for cut in model.cuts} == {"trunk"}
    assert model.cuts[-1].name == "trunk"
    assert model.checkpoint.head == "none"
    assert any("every layer counts as trunk" in note for note in model.notes)
    assert any("ImageNet's mean" in note for note in model.notes)


def test_a_network_that_wraps_one_network_is_walked_through(save):
    model = load(save(randomised(Wrapped())), declare("Wrapped", head_from="projector"))
    names = ["encoder.stem", "encoder.act", "encoder.blocks.0", "encoder.blocks.1", "encoder.pool"]
    assert [cut.name for cut in model.cuts] == [*names, "trunk", "projector"]
    inner = select_cuts(model, "encoder.blocks.0.first")
    assert [(cut.part, cut.layout) for cut in inner] == [("trunk", "map")]


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "nan"])
def test_the_file_has_to_fill_the_network_strictly(save, change):
    state = dict(randomised(Net()).state_dict())
    if change == "missing":
        del state["blocks.1.first.bias"]
    elif change == "extra":
        state["blocks.2.first.bias"] = torch.zeros(8)
    elif change == "shape":
        state["blocks.1.first.bias"] = torch.zeros(9)
    else:
        state["blocks.1.first.bias"][0] = torch.nan
    with pytest.raises(CheckpointError, match=r"blocks\.[12]\.first\.bias"):
        load(save(nn.Module(), lambda _: state), declare())


@pytest.mark.parametrize(
    ("arch", "match"),
    [
        ("nets", "does not name a factory"),
        (":make", "does not name a factory"),
        ("no_such_module_here:make", "cannot be imported: ModuleNotFoundError"),
        (f"{HERE}:nothing", "cannot be imported: AttributeError"),
        (f"{HERE}:constant", "is a int, which cannot be called"),
        (f"{HERE}:fails", "KeyError: 'no such width'"),
        (f"{HERE}:needs", "TypeError: .*width"),
        (f"{HERE}:number", "returns a int"),
    ],
)
def test_a_factory_that_cannot_be_used_says_why(save, arch, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        load(save(Net()), Declared(arch=arch))
    assert caught.value.hint


def test_a_factory_in_the_current_folder_is_found_and_the_path_is_left_clean(
    save, tmp_path, monkeypatch
):
    (tmp_path / "nets_of_this_folder.py").write_text(
        "from torch import nn\ndef make(): return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU())\n"
    )
    path = save(randomised(nn.Sequential(nn.Conv2d(3, 4, 3, 2))))
    before = list(sys.path)
    monkeypatch.chdir(tmp_path)
    model = load(path, Declared(arch="nets_of_this_folder:make", image_size=32))
    assert [cut.name for cut in model.cuts] == ["0", "trunk"]
    assert sys.path == before
    assert len(model.checkpoint.architecture["code"]) == 64


def test_head_from_that_is_not_there_shows_the_nearest(save):
    with pytest.raises(UnknownNameError, match="no module called 'projecter'") as caught:
        load(save(Net()), declare(head_from="projecter"))
    assert "projector" in caught.value.near


def test_a_head_without_a_trunk_is_refused(save):
    with pytest.raises(CheckpointError, match="no layer before stem"):
        load(save(Net()), declare(head_from="stem"))


def test_a_network_that_does_not_take_the_images_says_so(save):
    with pytest.raises(CheckpointError, match="does not run on 2 images of 32 × 32"):
        load(save(fixed()), declare("fixed", image_size=32))


# What an output's axes are.


@pytest.mark.parametrize("registers", [0, 3])
def test_tokens_are_told_by_the_networks_own_attribute(save, registers, monkeypatch):
    monkeypatch.setattr(sys.modules[HERE], "Chosen", lambda: Tokens(registers=registers), False)
    network, images = randomised(Tokens(registers=registers)), torch.randn(2, 3, 64, 64)
    model = load(save(network), declare("Chosen"))
    assert [cut.name for cut in model.cuts] == [
        "embed.0", "embed.2", "layers.0", "trunk"
    ]  # fmt: skip
    assert any("embed.1 is no cut point" in note for note in model.notes)  # (b, d, n)
    by_name = {cut.name: cut for cut in model.cuts}
    assert by_name["embed.2"].prefix_tokens == 0
    assert by_name["trunk"].prefix_tokens == 1 + registers
    with torch.no_grad():
        x = network(images)
    found = captured(model, images)
    torch.testing.assert_close(found["trunk"], x[:, 1 + registers :].mean(1))
    (cls,) = select_cuts(model, "trunk", "cls")
    with torch.no_grad(), open_taps(model, [cls]) as taps:
        torch.testing.assert_close(taps.run(images)["trunk"], x[:, 0])


def test_registers_alone_are_no_class_token(save):
    model = load(save(randomised(registers_only())), declare("registers_only"))
    assert model.cuts[-1].prefix_tokens == 2
    with pytest.raises(CheckpointError, match="'cls' fits none"):
        select_cuts(model, "trunk", "cls")


def test_tokens_that_nothing_tells_apart_have_to_be_declared(save):
    path = save(randomised(unmarked()))
    with pytest.raises(CheckpointError, match="16 tokens are no patches") as caught:
        load(path, declare("unmarked"))
    assert "--declare prefix_tokens" in caught.value.hint
    model = load(path, declare("unmarked", prefix_tokens=1))
    assert [cut.prefix_tokens for cut in model.cuts[-2:]] == [1, 1]


def test_channels_last_is_told_by_a_wider_image(save):
    network, images = randomised(ChannelsLast()), torch.randn(2, 3, 64, 64)
    model = load(save(network), declare("ChannelsLast"))
    assert [cut.layout for cut in model.cuts] == ["map", "map-last", "map-last"]
    with torch.no_grad():
        expected = network(images).mean((1, 2))
    torch.testing.assert_close(captured(model, images)["trunk"], expected)


def test_where_a_trace_cannot_tell_the_axes_are_asked_for(save):
    path = save(randomised(fixed()))
    with pytest.raises(CheckpointError, match="nothing tells where its channels are") as caught:
        load(path, declare("fixed"))
    assert "--declare map_axes" in caught.value.hint
    model = load(path, declare("fixed", map_axes="nhwc"))
    assert [(cut.layout, cut.width) for cut in model.cuts] == [
        ("map", 5),
        ("map-last", 5),
        ("map-last", 5),
    ]
    told = load(path, declare("fixed_and_told"))
    assert [cut.layout for cut in told.cuts] == ["map", "map-last", "map-last"]


def test_a_card_names_the_factory_and_the_images(save):
    path = save(randomised(Net()))
    card = path.with_suffix(".toml")
    card.write_text(
        f'weights = "mine.pth"\n[declared]\narch = "{HERE}:Net"\nhead_from = "projector"\n'
        "[preprocessing]\nresize = 40\ncrop = 32\nmean = [0.5, 0.5, 0.5]\nstd = [1, 1, 1]\n"
    )
    model = load(card)
    assert model.checkpoint.family == "own"
    assert model.checkpoint.preprocessing.crop == 32
    assert not any("ImageNet" in note for note in model.notes)
    assert model.cuts[-1].part == "head"


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_an_architecture_of_a_library_has_its_usual_cut_points(save, library):
    import timm
    import torchvision

    made = {
        "timm": lambda: timm.create_model("mobilenetv3_small_050", num_classes=7),
        "torchvision": lambda: torchvision.models.mobilenet_v3_small(num_classes=7),
    }[library]
    name = {"timm": "mobilenetv3_small_050", "torchvision": "mobilenet_v3_small"}[library]
    network = randomised(made())
    path = save(network, lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}})
    model = load(path, Declared(arch=f"{library}.models:{name}"))
    assert model.cuts[-1].part == "head"
    assert "trunk" in [cut.name for cut in model.cuts]
    assert any("is assumed" in note or "are assumed" in note for note in model.notes)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(captured(model, images)[model.cuts[-1].name], network(images))


def test_an_unknown_architecture_of_a_library_shows_the_nearest(save):
    with pytest.raises(UnknownNameError, match="resnet5000"):
        load(save(Net()), Declared(arch="timm.models:resnet5000"))
