"""The layout of ``layerscope pretrain``: a narrow trunk, an MLP head, perhaps a read-out."""

from pathlib import Path

import pytest
import torch

from layerscope.models import untrained
from layerscope.models.families import families
from layerscope.testing import FamilyExample, check_family
from tests.models.families.truth import randomised, resnet_features


@pytest.mark.parametrize("output", [0, 4])
def test_every_cut_equals_a_plain_forward(output):
    architecture = {"trunk": "resnet18", "width": 8, "head": [32, 24], "output": output}
    network = randomised(untrained(architecture, 0))

    def forward(images):
        features = resnet_features(network.trunk, images)
        linear, norm, _ = network.head.get_submodule("1")
        x = features["head.1"] = torch.relu(norm(linear(features["trunk"])))
        features["head.2"] = network.head.get_submodule("2")[0](x)
        return features

    assert check_family("layerscope", FamilyExample(network.state_dict(), forward)) == []


def test_every_family_has_a_test_in_its_own_layout():

    files = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    missing = [name for name in families if f"test_{name.replace('-', '_')}" not in files]
    assert missing == []
