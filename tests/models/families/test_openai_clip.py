"""The layout of openai/CLIP: TorchScript archives of half precision, with OpenCLIP as the judge."""

import pytest
import torch
from open_clip.model import CLIP, build_model_from_openai_state_dict
from torch import nn

from layerscope.errors import CheckpointError
from layerscope.models import load
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.hooked import Where, hooked, images, loaded_like, transformer_cuts
from tests.models.families.truth import randomised

TEXT = {"context_length": 5, "vocab_size": 7, "width": 64, "heads": 1, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8}
RESNET = {"image_size": 64, "layers": (1, 2, 1, 1), "width": 16}
VIT_CUTS: Where = {
    **transformer_cuts("visual.ln_pre", "visual.transformer.resblocks", 2, "visual.ln_post"),
    "head.1": ("visual", "none"),
}
RESNET_CUTS: Where = {
    "stem": ("visual.avgpool", "map"),
    "layer1.0": ("visual.layer1.0", "map"),
    "layer2.0": ("visual.layer2.0", "map"),
    "layer2.1": ("visual.layer2.1", "map"),
    "layer3.0": ("visual.layer3.0", "map"),
    "layer4.0": ("visual.layer4.0", "map"),
    "trunk": ("visual.layer4", "map"),
    "head.1": ("visual", "none"),
}
KINDS = [(VIT, VIT_CUTS, 32), (RESNET, RESNET_CUTS, 64)]


def half(vision: dict) -> dict[str, torch.Tensor]:
    """Return what OpenAI's archives hold: half precision, and three settings."""
    network = randomised(CLIP(24, vision, TEXT, quick_gelu=True))
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }
    settings = {"input_resolution": vision["image_size"], "context_length": 5, "vocab_size": 7}
    return state | {name: torch.tensor(value) for name, value in settings.items()}


class Archive(nn.Module):
    """What OpenAI traced: the network, its settings among its buffers."""

    def __init__(self, network: nn.Module, state: dict[str, torch.Tensor]):
        super().__init__()
        for name, child in network.named_children():
            self.add_module(name, child)
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            self.register_parameter(name, getattr(network, name))
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, state[name])

    def forward(self, x):
        return self.visual(x)


def judge(state: dict[str, torch.Tensor]) -> nn.Module:
    """Return OpenCLIP's reading of OpenAI's weights."""
    network = build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32)
    return network.float().eval()


@pytest.mark.parametrize(("vision", "cuts", "side"), KINDS, ids=["vit", "resnet"])
def test_every_cut_equals_what_openclip_makes_of_the_weights(vision, cuts, side):
    state = half(vision)
    network = judge(state)
    example = FamilyExample(
        state, lambda x: hooked(network, cuts, x, network.encode_image), side=side
    )
    assert check_family("openai-clip", example) == []


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(("vision", "cuts", "side"), KINDS, ids=["vit", "resnet"])
def test_a_torchscript_archive_is_read_without_its_code(tmp_path, vision, cuts, side):
    state = half(vision)
    network = judge(state)
    script = torch.jit.trace(Archive(network, state), images(side), check_trace=False)
    for _, tensor in (*script.named_parameters(), *script.named_buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.half()
    script.save(str(tmp_path / "ViT-tiny.pt"))
    network.float()  # the script halved the tensors that the two share
    model = loaded_like(tmp_path / "ViT-tiny.pt", network, cuts, side, run=network.encode_image)
    assert model.checkpoint.family == "openai-clip"
    assert model.checkpoint.preprocessing.interpolation == "bicubic"
    assert model.checkpoint.preprocessing.mean[0] == 0.48145466
    assert model.checkpoint.preprocessing.crop == side


def test_the_activation_is_quick_gelu_unless_declared(tmp_path):
    torch.save(half(VIT), tmp_path / "clip.pt")
    assert load(tmp_path / "clip.pt").checkpoint.architecture["activation"] == "quick_gelu"
    model = load(tmp_path / "clip.pt", Declared(trunk_act="gelu"))
    assert model.checkpoint.architecture["activation"] == "gelu"


def test_without_the_settings_a_file_may_be_openclips(tmp_path):
    state = half(VIT)
    for name in ("input_resolution", "context_length", "vocab_size"):
        del state[name]
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="is not of the family 'openai-clip'"):
        load(tmp_path / "clip.pt", Declared(family="openai-clip"))
    declared = Declared(trunk_act="quick_gelu", attention_heads=2)
    network = judge(state)
    file = tmp_path / "clip.pt"
    model = loaded_like(file, network, VIT_CUTS, 32, declared=declared, run=network.encode_image)
    assert model.checkpoint.family == "open-clip"


def test_the_text_tower_is_ignored_for_a_reason(tmp_path):
    torch.save(half(VIT), tmp_path / "clip.pt")
    reasons = load(tmp_path / "clip.pt").ignored
    assert reasons["transformer.resblocks.0.attn.in_proj_weight"] == "the text tower's"
    assert reasons["input_resolution"] == "a setting of the network"
    assert "visual.proj" not in reasons


def test_a_resnets_representation_is_the_mean_of_its_last_map(tmp_path):
    torch.save(half(RESNET), tmp_path / "clip.pt")
    model = load(tmp_path / "clip.pt")
    assert [(cut.name, cut.width) for cut in model.cuts[-2:]] == [("trunk", 512), ("head.1", 24)]
    assert any("attention pooling of that map" in note for note in model.notes)
