"""The same features on a GPU as on a processor, and in memory of their own there too."""

import pytest
import timm
import torch
import torchvision

from layerscope.extraction.capture import _evaluating
from layerscope.models import load, open_taps

pytestmark = pytest.mark.gpu
TOLERANCE = 1e-4
"""Relative to the largest feature: float32 sums in another order, TF32 switched off."""

NETWORKS = {
    "resnet18": torchvision.models.resnet18,
    "convnext_tiny": torchvision.models.convnext_tiny,
    "swin_t": torchvision.models.swin_t,
    "vit_tiny": lambda: timm.create_model("vit_tiny_patch16_224"),
}


@pytest.fixture(params=sorted(NETWORKS))
def model(request, tmp_path):
    torch.manual_seed(0)
    torch.save(NETWORKS[request.param]().state_dict(), tmp_path / "network.pth")
    return load(tmp_path / "network.pth")


def captured(model, images, device):
    with (
        torch.inference_mode(),
        _evaluating(model.module, torch.device(device)),
        open_taps(model, model.cuts) as taps,
    ):
        return {name: rows.cpu() for name, rows in taps.run(images.to(device)).items()}


def test_every_cut_has_the_features_of_the_processor(model):
    images = torch.randn(4, 3, 224, 224)
    here, there = captured(model, images, "cpu"), captured(model, images, "cuda")
    assert list(here) == list(there)
    for name in here:
        gap = (here[name] - there[name]).abs().max() / here[name].abs().max()
        assert gap <= TOLERANCE, f"{name} differs by {gap:.1e}"
