"""The layouts of Hugging Face transformers, saved by the library and judged by its own networks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPForImageClassification,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
    ViTMSNConfig,
    ViTMSNModel,
)

from layerscope.errors import CheckpointError
from layerscope.models import load
from layerscope.models.declared import Declared
from layerscope.models.preprocessing import CLIP, IMAGENET_BICUBIC
from layerscope.testing import FamilyExample, check_family
from layerscope.types import Preprocessing
from tests.models.families.hooked import Where, hooked, loaded_like, transformer_cuts
from tests.models.families.truth import randomised

SIDE = 32
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 8,
}
WIDE = {**SIZES, "intermediate_size": 48}
DECODER = {
    "decoder_num_hidden_layers": 1,
    "decoder_hidden_size": 16,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "mask_ratio": 0.0,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 9,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
REGISTERS = "behind registers"


def vit_cuts(prefix: str = "", blocks: str = "layers", patches: str = "patches") -> Where:
    return transformer_cuts(
        f"{prefix}embeddings", f"{prefix}{blocks}", 2, f"{prefix}layernorm", patches=patches
    )


def clip_cuts(prefix: str = "") -> Where:
    norm = f"{prefix}post_layernorm"
    cuts = transformer_cuts(f"{prefix}pre_layrnorm", f"{prefix}encoder.layers", 2, norm)
    return {**cuts, "trunk": (norm, "none")}


def vit() -> tuple[nn.Module, Where]:
    network = ViTModel(ViTConfig(layer_norm_eps=1e-3, **WIDE), add_pooling_layer=False)
    return network, vit_cuts()


def vit_without_biases() -> tuple[nn.Module, Where]:
    config = ViTConfig(qkv_bias=False, hidden_act="relu", **WIDE)
    return ViTModel(config, add_pooling_layer=False), vit_cuts()


def vit_with_pooler() -> tuple[nn.Module, Where]:
    return ViTModel(ViTConfig(**WIDE)), {**vit_cuts(), "pooler": ("pooler", "none")}


def vit_with_classifier() -> tuple[nn.Module, Where]:
    network = ViTForImageClassification(ViTConfig(num_labels=5, **WIDE))
    return network, {**vit_cuts("vit."), "head.1": ("classifier", "none")}


def msn() -> tuple[nn.Module, Where]:
    return ViTMSNModel(ViTMSNConfig(layer_norm_eps=1e-2, **WIDE)), vit_cuts(
        blocks="encoder.layer"
        if hasattr(ViTMSNModel(ViTMSNConfig(**WIDE)), "encoder")
        else "layers"
    )


def mae() -> tuple[nn.Module, Where]:
    return ViTMAEForPreTraining(ViTMAEConfig(**WIDE, **DECODER)), vit_cuts("vit.")


def mae_encoder() -> tuple[nn.Module, Where]:
    return ViTMAEModel(ViTMAEConfig(**WIDE, **DECODER)), vit_cuts()


def dinov2() -> tuple[nn.Module, Where]:
    return Dinov2Model(Dinov2Config(mlp_ratio=2, **SIZES)), vit_cuts(blocks="encoder.layer")


def dinov2_gated() -> tuple[nn.Module, Where]:
    network = Dinov2Model(Dinov2Config(use_swiglu_ffn=True, **SIZES))
    return network, vit_cuts(blocks="encoder.layer")


def dinov2_with_classifier() -> tuple[nn.Module, Where]:
    network = Dinov2ForImageClassification(Dinov2Config(**SIZES))
    return network, vit_cuts("dinov2.", "encoder.layer")


def dinov2_with_registers() -> tuple[nn.Module, Where]:
    network = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES))
    return network, vit_cuts(blocks="encoder.layer", patches=REGISTERS)


def dinov2_gated_with_registers() -> tuple[nn.Module, Where]:
    config = Dinov2WithRegistersConfig(use_swiglu_ffn=True, **SIZES)
    network = Dinov2WithRegistersModel(config)
    return network, vit_cuts(blocks="encoder.layer", patches=REGISTERS)


def clip() -> tuple[nn.Module, Where]:
    vision = {**WIDE, "hidden_act": "gelu"}
    network = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=16))
    return network, {**clip_cuts("vision_model."), "head.1": ("visual_projection", "none")}


def clip_vision() -> tuple[nn.Module, Where]:
    network = CLIPVisionModel(CLIPVisionConfig(**WIDE))
    return network, clip_cuts("vision_model." if hasattr(network, "vision_model") else "")


def clip_vision_with_projection() -> tuple[nn.Module, Where]:
    network = CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=16, **WIDE))
    return network, {**clip_cuts("vision_model."), "head.1": ("visual_projection", "none")}


MAKERS = {
    maker.__name__: maker
    for maker in (
        vit,
        vit_without_biases,
        vit_with_pooler,
        vit_with_classifier,
        msn,
        mae,
        mae_encoder,
        dinov2,
        dinov2_gated,
        dinov2_with_classifier,
        dinov2_with_registers,
        dinov2_gated_with_registers,
        clip,
        clip_vision,
        clip_vision_with_projection,
    )
}


def made(maker: str) -> tuple[nn.Module, Where]:
    network, cuts = MAKERS[maker]()
    return randomised(network), cuts


def runner(network: nn.Module):
    """Return how the network's image tower is run on images, none of whose patches is masked."""
    if isinstance(network, CLIPModel):
        return lambda x: network.get_image_features(pixel_values=x)
    if "MAE" in type(network).__name__:
        order = torch.arange((SIDE // 8) ** 2)
        return lambda x: network(x, noise=order.expand(len(x), -1).float())
    return network


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("saved", ["save_pretrained", "state_dict"])
def test_every_cut_equals_the_librarys_own(tmp_path, maker, saved):
    network, cuts = made(maker)
    network.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    if saved == "state_dict":
        # The library writes the names of its first version and keeps others in memory.
        path = tmp_path / "pytorch_model.bin"
        torch.save(network.state_dict(), path)
    model = loaded_like(
        path, network, cuts, SIDE, declared=Declared(image_size=SIDE), run=runner(network)
    )
    assert model.checkpoint.family == "transformers"


DECLARED = {
    "vit_with_classifier": Declared(attention_heads=4),
    "vit_with_pooler": Declared(attention_heads=4),
    "mae": Declared(attention_heads=4),
    "dinov2": Declared(attention_heads=4, image_size=SIDE),
    "dinov2_gated_with_registers": Declared(attention_heads=4, image_size=SIDE),
    "clip": Declared(attention_heads=4, trunk_act="gelu"),
    "clip_vision": Declared(attention_heads=4, trunk_act="quick_gelu"),
}


@pytest.mark.parametrize("maker", DECLARED)
def test_without_configuration_the_rest_is_declared(maker):
    network, cuts = made(maker)
    example = FamilyExample(
        dict(network.state_dict()),
        lambda x: hooked(network, cuts, x, runner(network)),
        side=SIDE,
        declared=DECLARED[maker],
    )
    assert check_family("transformers", example) == []


@pytest.mark.parametrize("maker", ["dinov2", "dinov2_with_registers"])
def test_dinov2_interpolates_its_positions_as_the_library_does(tmp_path, maker):
    network, cuts = made(maker)
    network.save_pretrained(tmp_path)
    BitImageProcessor(size={"shortest_edge": 64}, crop_size=56).save_pretrained(tmp_path)
    model = loaded_like(tmp_path / "model.safetensors", network, cuts, 56)
    assert (model.checkpoint.preprocessing.resize, model.checkpoint.preprocessing.crop) == (64, 56)


@pytest.mark.parametrize("maker", ["vit", "clip"])
def test_other_sizes_are_declared_and_interpolated_as_the_library_does(tmp_path, maker):
    network, cuts = made(maker)
    network.save_pretrained(tmp_path)
    own = network.get_image_features if maker == "clip" else network
    loaded_like(
        tmp_path / "model.safetensors",
        network,
        cuts,
        48,
        declared=Declared(image_size=48),
        run=lambda x: own(pixel_values=x, interpolate_pos_encoding=True),
    )


def saved(folder: Path, maker: str, **changes) -> Path:
    network, _ = made(maker)
    network.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.safetensors"


@pytest.mark.parametrize(
    ("maker", "processor", "expected"),
    [
        (
            "vit",
            ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], size={"height": 32, "width": 32}),
            Preprocessing((32, 32), None, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5)),
        ),
        (
            "clip",
            CLIPImageProcessor(size={"shortest_edge": 36}, crop_size=32),
            replace(CLIP, resize=36, crop=32),
        ),
        (
            "dinov2",
            BitImageProcessor(
                size={"shortest_edge": 40},
                crop_size=32,
                image_mean=IMAGENET_BICUBIC.mean,
                image_std=IMAGENET_BICUBIC.std,
            ),
            replace(IMAGENET_BICUBIC, resize=40, crop=32),
        ),
    ],
)
def test_preprocessing_is_the_processors_beside_the_file(tmp_path, maker, processor, expected):
    path = saved(tmp_path, maker)
    processor.save_pretrained(tmp_path)
    model = load(path)
    assert model.checkpoint.preprocessing == expected
    assert not any("usual preprocessing" in note for note in model.notes)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": 48, "resample": 3}, {"resize": (48, 48), "interpolation": "bicubic"}),
        ({"size": 40, "crop_size": 32, "do_center_crop": True}, {"resize": 40, "crop": 32}),
        ({"size": {"shortest_edge": 32}}, {"resize": 32, "crop": 32}),
        (
            {"do_resize": False, "crop_size": {"height": 32, "width": 32}},
            {"resize": None, "crop": 32},
        ),
        (
            {"do_normalize": False, "size": 32},
            {"resize": (32, 32), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
        ),
        (
            {"do_rescale": False, "size": 32, "image_mean": [127.5] * 3, "image_std": [51.0] * 3},
            {"resize": (32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)},
        ),
        (
            {
                "rescale_factor": 1 / 127.5,
                "size": 32,
                "image_mean": [1.0] * 3,
                "image_std": [1.0] * 3,
            },
            {"resize": (32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        ),
    ],
)
def test_older_and_rarer_processors_are_understood(tmp_path, settings, expected):
    from layerscope.models.image_processors import preprocessing_of

    usual = Preprocessing((224, 224), None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert preprocessing_of(settings, usual) == replace(usual, **expected)


def test_a_processor_may_lie_within_the_settings_of_both_modalities(tmp_path):
    path = saved(tmp_path, "clip")
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size=32).save_pretrained(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    both = {"image_processor": json.loads(file.read_text()), "processor_class": "CLIPProcessor"}
    file.unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps(both))
    assert load(path).checkpoint.preprocessing.resize == 36


@pytest.mark.parametrize(
    "settings",
    [
        {"resample": 1},
        {"size": {"longest_edge": 32}},
        {"size": {"height": 0, "width": 32}},
        {"crop_size": {"height": 32, "width": 16}},
        {"image_mean": [0.5]},
        {"image_std": ["a", "b", "c"]},
        {"rescale_factor": 0},
    ],
)
def test_processors_that_cannot_be_followed_are_refused(tmp_path, settings):
    path = saved(tmp_path, "vit")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="is not supported"):
        load(path)


@pytest.mark.parametrize(
    ("maker", "expected"),
    [("vit", (0.5, 0.5, 0.5)), ("mae_encoder", IMAGENET_BICUBIC.mean), ("clip", CLIP.mean)],
)
def test_the_usual_preprocessing_is_assumed_aloud(tmp_path, maker, expected):
    model = load(saved(tmp_path, maker))
    assert model.checkpoint.preprocessing.mean == expected
    assert any("usual preprocessing" in note for note in model.notes)


def test_dinov2_is_usually_given_images_of_224_pixels(tmp_path):
    model = load(saved(tmp_path, "dinov2"))
    assert model.checkpoint.preprocessing == IMAGENET_BICUBIC
    assert any("from 4×4 patches to 28×28" in note for note in model.notes)


@pytest.mark.parametrize(
    ("maker", "changes", "message"),
    [
        ("vit", {"hidden_act": "gelu_new"}, "activation 'gelu_new'"),
        ("vit", {"num_attention_heads": "four"}, "'four' attention heads"),
        ("vit", {"num_attention_heads": 5}, "attention heads"),
        ("vit", {"layer_norm_eps": "small"}, "layer_norm_eps 'small'"),
        ("vit", {"model_type": "clip"}, "is of a 'clip'"),
        ("clip", {"vision_config": [1]}, r"vision_config \[1\]"),
        ("vit_with_pooler", {"pooler_act": "mish"}, "pooler_act 'mish'"),
    ],
)
def test_configurations_that_cannot_be_followed_are_refused(tmp_path, maker, changes, message):
    with pytest.raises(CheckpointError, match=message):
        load(saved(tmp_path, maker, **changes))


def test_clips_activation_has_to_be_known(tmp_path):
    path = saved(tmp_path, "clip")
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="which activation"):
        load(path, Declared(attention_heads=4))
    with pytest.raises(CheckpointError, match="how many attention heads"):
        load(path, Declared(trunk_act="gelu"))


def test_what_a_configuration_leaves_out_is_its_classs_default(tmp_path):
    path = saved(tmp_path, "clip")
    config = {"model_type": "clip", "vision_config": {"num_attention_heads": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(path).checkpoint.architecture["activation"] == "quick_gelu"


def test_classifiers_of_patches_are_ignored_for_a_reason(tmp_path):
    assert (
        "not rebuilt" in load(saved(tmp_path, "dinov2_with_classifier")).ignored["classifier.bias"]
    )
    network = CLIPForImageClassification(
        CLIPConfig(text_config=TEXT, vision_config=WIDE, projection_dim=16)
    )
    torch.save(randomised(network).state_dict(), tmp_path / "classifier.pt")
    (tmp_path / "config.json").unlink()
    model = load(tmp_path / "classifier.pt", Declared(attention_heads=4, trunk_act="gelu"))
    assert "not rebuilt" in model.ignored["classifier.weight"]


def test_queries_without_keys_are_refused(tmp_path):
    network, _ = made("vit")
    state = dict(network.state_dict())
    del state["layers.1.attention.k_proj.weight"]
    torch.save(state, tmp_path / "vit.pt")
    with pytest.raises(CheckpointError, match=r"Of blocks\.1\.attn\.query\.weight"):
        load(tmp_path / "vit.pt", Declared(attention_heads=4))


def test_a_tensor_of_another_transformer_is_refused(tmp_path):
    network, _ = made("vit")
    state = dict(network.state_dict()) | {"layers.0.lambda_1": torch.ones(32)}
    torch.save(state, tmp_path / "beit.pt")
    with pytest.raises(CheckpointError, match=r"holds layers\.0\.lambda_1"):
        load(tmp_path / "beit.pt", Declared(attention_heads=4))
