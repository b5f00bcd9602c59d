"""MSN: an encoder and its target, each a transformer with an MLP head, and shared prototypes."""

from __future__ import annotations

from torch.nn import functional

from layerscope.models.contents import Contents, Weights, unwrapped
from layerscope.models.declared import Activation, Branch, Declared
from layerscope.models.families import Family, Parts, branch_of, register, require_weights
from layerscope.models.heads import Operation, act, l2, linear, norm
from layerscope.models.trunks import TrunkFacts, build_trunk
from layerscope.models.trunks.positions import bicubic

_TABLES: dict[Branch, str] = {"momentum": "target_encoder", "online": "encoder"}
_FACTS = TrunkFacts(
    attention_heads={192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}, resample=bicubic()
)


@register
class MSN(Family):
    """The checkpoints of facebookresearch/msn."""

    name = "msn"
    title = "MSN"
    layout = "encoder, target_encoder: module.blocks., module.fc.fc1.; prototypes"
    source = "facebookresearch/msn src/msn_train.py, src/deit.py, src/losses.py"
    branches = ("momentum", "online")

    def recognise(self, contents: Contents) -> str:
        target = unwrapped(contents.table("target_encoder"))
        if target.has(r"cls_token$", r"blocks\.0\.", r"fc\.fc1\.weight$", r"fc\.fc3\.weight$"):
            return "a target_encoder with a class token and the head fc.fc1 to fc.fc3"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        branch = branch_of(self, declared)
        encoder = require_weights(unwrapped(contents.table(_TABLES[branch])), branch)
        other = _TABLES["online" if branch == "momentum" else "momentum"]
        prototypes = _prototypes(contents)
        fc = encoder.only("fc.")
        return Parts(
            trunk=build_trunk(encoder.without("fc."), _FACTS, declared),
            tensors=fc.joined(prototypes),
            head=_head(fc, declared.head_act or "gelu"),
            logits={"Q": (linear("prototypes"),)} if prototypes else {},
            ignored={rf"{other}/": f"the weights of {other}"},
        )


def _head(fc: Weights, activation: Activation) -> tuple[Operation, ...]:
    steps: list[Operation] = []
    for number in (1, 2):
        steps.append(linear(f"fc.fc{number}"))
        if f"fc.bn{number}.weight" in fc:
            steps.append(norm(f"fc.bn{number}"))
        steps.append(act(activation))
    return (*steps, linear("fc.fc3"), l2())


def _prototypes(contents: Contents) -> Weights:
    """Return the prototypes as a Linear's weight: of length 1, as the loss compares them."""
    found = Weights({k: v for k, v in contents.table().items() if k == "prototypes"})
    if not found:
        return found
    normalised = functional.normalize(found["prototypes"].float(), dim=-1)
    weight = found.with_tensor("prototypes.weight", normalised, ["prototypes"])
    return weight.only("prototypes.")
