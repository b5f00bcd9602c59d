"""BYOL by sthalles/PyTorch-BYOL: two networks in tables of their own, without the predictor."""

from __future__ import annotations

from dataclasses import replace

from layerscope.models.contents import Contents, unwrapped
from layerscope.models.declared import Branch, Declared
from layerscope.models.families import Family, Parts, branch_of, register, require_weights
from layerscope.models.families.byol_yaox12 import CHILDREN
from layerscope.models.heads import sequential
from layerscope.models.preprocessing import UNNORMALISED
from layerscope.models.trunks import TrunkFacts, build_trunk

_TABLES: dict[Branch, str] = {
    "online": "online_network_state_dict",
    "momentum": "target_network_state_dict",
}


@register
class BYOLSthalles(Family):
    """The checkpoints of sthalles/PyTorch-BYOL."""

    name = "byol-sthalles"
    title = "BYOL (sthalles)"
    layout = "online_network_state_dict, target_network_state_dict: encoder.0., projetion.net."
    source = "sthalles/PyTorch-BYOL models/resnet_base_network.py, trainer.py"
    branches = ("online", "momentum")

    def recognise(self, contents: Contents) -> str:
        online = unwrapped(contents.table(_TABLES["online"]))
        if online.has(r"encoder\.0\.weight$", r"projetion\.net\.0\.weight$"):
            return "online_network_state_dict with encoder and projetion.net"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        branch = branch_of(self, declared)
        network = require_weights(unwrapped(contents.table(_TABLES[branch])), branch)
        head = network.only("projetion.")
        return Parts(
            trunk=build_trunk(
                network.under("encoder.").renamed(CHILDREN), TrunkFacts(stem="imagenet"), declared
            ),
            tensors=head,
            head=sequential(head, "projetion.net.", declared.head_act or "relu"),
            ignored={
                **{rf"{table}/": "the other branch's weights" for table in _TABLES.values()},
                r"optimizer_state_dict/": "state of the optimiser",
            },
            preprocessing=replace(UNNORMALISED, resize=96, crop=96),
        )
