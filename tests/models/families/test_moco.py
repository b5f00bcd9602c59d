"""The layout of facebookresearch/moco: both encoders and the queue under ``module.``."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from layerscope.errors import CheckpointError
from layerscope.models.checkpoint import assemble
from layerscope.models.contents import Contents
from layerscope.models.declared import Declared
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features, trained


class MoCo(nn.Module):
    def __init__(self, mlp: bool):
        super().__init__()
        self.encoder_q, self.encoder_k = resnet18(num_classes=16), resnet18(num_classes=16)
        if mlp:
            for encoder in (self.encoder_q, self.encoder_k):
                encoder.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), encoder.fc)
        self.register_buffer("queue", torch.randn(16, 32))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))


def example(mlp: bool = True, branch: str | None = None) -> FamilyExample:
    network = randomised(MoCo(mlp))
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    encoder = network.encoder_k if branch == "momentum" else network.encoder_q

    def forward(images):
        features = resnet_features(encoder, images)
        if mlp:
            features["head.1"] = encoder.fc[1](encoder.fc[0](features["trunk"]))
            features["head.2"] = encoder.fc[2](features["head.1"])
        else:
            features["head.1"] = encoder.fc(features["trunk"])
        last = features["head.2" if mlp else "head.1"]
        features["head.2n" if mlp else "head.1n"] = last / last.norm(dim=1, keepdim=True)
        return features

    contents = {"epoch": 3, "arch": "resnet18", "state_dict": state, "optimizer": trained(network)}
    return FamilyExample(contents, forward, declared=Declared(branch=branch))


@pytest.mark.parametrize("mlp", [True, False])
@pytest.mark.parametrize("branch", [None, "momentum"])
def test_every_cut_equals_a_plain_forward(mlp, branch):
    assert check_family("moco", example(mlp, branch)) == []


def test_a_tensor_of_the_head_that_no_operation_uses_is_refused():
    contents = dict(example().contents)
    contents["state_dict"] = contents["state_dict"] | {"module.encoder_q.fc.scale": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"does not account for: fc\.scale"):
        assemble(Contents(contents), Declared())
