"""VISSL: a trunk below ``_feature_blocks.`` or ViT's own names, and numbered heads behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn import functional

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Activation, Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.heads import (
    Operation,
    act,
    l2,
    linear,
    matrix,
    norm,
    numbered_logits,
    sequential,
    weight_normed,
)
from layerscope.models.trunks import Trunk, TrunkFacts, build_trunk
from layerscope.models.trunks.positions import bicubic

_MODEL = ("classy_state_dict", "base_model", "model")
_META = ("classy_state_dict", "base_model", "meta", "trunk")
_PIECES = {"shard", "shard_list", "slice", "slice_list"}
_FLAT = re.compile(r"(.*[/.])?(flat_param|_flat_param|_fsdp_wrapped_module|_fpw_module|_fpw\.)")
_LAYOUT = (
    (r"^(base_model\.)?_feature_blocks\.", ""),
    (r"^base_model\.", ""),
)
_REGNET = (
    (
        (r"^conv1\.stem\.", "stem."),
        (r"^res\d\.(block(\d+)-\d+)\.", r"trunk_output.block\2.\1."),
    ),
    (
        (r"\.proj\.", ".proj.0."),
        (r"\.bn\.", ".proj.1."),
        (r"\.f\.c\.", ".f.c.0."),
        (r"\.f\.final_bn\.", ".f.c.1."),
        (r"\.se\.excitation\.0\.", ".se.fc1."),
        (r"\.se\.excitation\.2\.", ".se.fc2."),
    ),
)
"""From the names of ClassyVision's RegNet to torchvision's, in two steps."""
_MASK = "patch_masking."
_INDEX = re.compile(r"(\d+)[./]")
_FACTS = TrunkFacts(attention_heads={192: 3, 384: 6, 768: 12, 1024: 16}, resample=bicubic())


@dataclass(frozen=True)
class _Behind:
    """What the family makes of the numbered heads."""

    tensors: Weights = field(default_factory=Weights)
    head: Sequence[Operation] = ()
    logits: Mapping[str, Sequence[Operation]] = field(default_factory=dict)
    unused: str = ""
    """Why the other tensors of the heads are not needed."""
    notes: tuple[str, ...] = ()


@register
class VISSL(Family):
    """The checkpoints of facebookresearch/vissl.

    Its linear benchmarks resize to 256, crop 224 and use the statistics of ImageNet, whatever the
    pre-training was (configs/config/benchmark/linear_image_classification).
    """

    name = "vissl"
    title = "VISSL"
    layout = "classy_state_dict/base_model/model: trunk, heads; or _feature_blocks."
    source = (
        "facebookresearch/vissl vissl/models/base_ssl_model.py, vissl/models/heads, "
        "vissl/models/trunks, vissl/utils/checkpoint.py"
    )

    def recognise(self, contents: Contents) -> str:
        kind = contents.value("type")
        if isinstance(kind, str) and kind in _PIECES and contents.names() & _PIECE_NAMES:
            return f"its type is {kind}"
        if contents.table(*_MODEL, "trunk"):
            return "classy_state_dict with a trunk"
        if contents.state_dict.has(r"(trunk\.)?(base_model\.)?_feature_blocks\."):
            return "keys below _feature_blocks"
        return ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        trunk, heads = _tables(contents)
        _require_whole(contents, trunk, heads)
        probed = trunk.has(r"base_model\.") or heads.has(r"\d+\.channel_bn\.")
        behind = _probes() if probed and heads else _behind(heads, declared)
        notes = list(behind.notes)
        if not contents.table(*_MODEL, "trunk"):
            notes.append(
                "VISSL also converted networks from Caffe2, some of which take the channels as "
                "blue, green, red; the file does not say. Red, green, blue is assumed."
            )
        return Parts(
            trunk=_trunk(trunk.without(_MASK), declared),
            tensors=behind.tensors,
            head=behind.head,
            logits=behind.logits,
            ignored={
                r".*patch_masking\.": "the mask token of iBOT",
                r"classy_state_dict/ema_model/": "averaged weights; VISSL evaluates base_model",
                r"classy_state_dict/(?!base_model/)": "state of the training",
                r"(.*[/.])?heads[/.]": behind.unused,
            },
            notes=notes,
        )


_PIECE_NAMES = {"shards", "weight", "layers", "classy_state_dict"}


def _tables(contents: Contents) -> tuple[Weights, Weights]:
    trunk, heads = contents.table(*_MODEL, "trunk"), contents.table(*_MODEL, "heads")
    if not trunk:
        weights = contents.state_dict
        whole = weights.has(r"trunk\.")
        trunk = weights.under("trunk.") if whole else weights
        heads = weights.under("heads.") if whole else Weights()
    return trunk, heads


def _require_whole(contents: Contents, trunk: Weights, heads: Weights) -> None:
    kind = contents.value("type")
    if isinstance(kind, str) and kind in _PIECES:
        raise CheckpointError(
            f"{contents.title} is one piece of a VISSL checkpoint in several files (type {kind}).",
            hint="Consolidate them first: VISSL's extra_scripts/convert_sharded_checkpoint.py "
            "with -t consolidated.",
        )
    flat = next((name for name in (*trunk, *heads) if _FLAT.match(name)), "")
    if flat or contents.value(*_META):
        raise CheckpointError(
            f"{contents.title} holds the flattened parameters of FSDP"
            + (f": {flat}." if flat else "."),
            hint="Consolidate it first: VISSL's extra_scripts/convert_sharded_checkpoint.py "
            "with -t consolidated.",
        )


def _trunk(tensors: Weights, declared: Declared) -> Trunk:
    tensors = tensors.renamed(_LAYOUT)
    if tensors.has(r"res2\.block1-0\."):
        for rules in _REGNET:
            tensors = tensors.renamed(rules)
    stem = tensors.shapes.get("conv1.weight", ())
    if len(stem) == 4 and stem[1] != 3:
        raise CheckpointError(
            f"The trunk takes images of {stem[1]} channels, such as the lightness of Lab.",
            hint="Only networks of red, green and blue are supported.",
        )
    return build_trunk(tensors, _FACTS, declared)


def _probes() -> _Behind:
    return _Behind(
        unused="a linear classifier that VISSL trained on the frozen trunk",
        notes=("Its heads are linear classifiers on a frozen trunk: it holds no projector.",),
    )


def _behind(heads: Weights, declared: Declared) -> _Behind:
    """Return the operations of the heads, which run one behind the other.

    Where a head has heads of its own (PIRL), each of the outer ones is for another input, and the
    one for whole images is the one that does not join several patches.
    """
    if not heads:
        return _Behind()
    if heads.has(r"\d+\.\d+\."):
        return _for_images(heads, declared)
    if heads.has(r"\d+\.clf\.\d"):
        return _chain(heads, "", _indices(heads), declared)
    numbers = _indices(heads)
    if len(numbers) == 1:
        prefix = f"{numbers[0]}."
        for pattern, read in _SINGLE.items():
            if heads.has(re.escape(prefix) + pattern):
                return read(heads, prefix, declared)
    raise CheckpointError(
        f"The heads are of a kind that is not known: {', '.join(sorted(heads)[:4])}.",
        hint="Describe the network with --declare arch=package.module:factory.",
    )


def _indices(tensors: Weights) -> list[int]:
    return sorted({int(match[1]) for match in map(_INDEX.match, tensors) if match})


def _for_images(heads: Weights, declared: Declared) -> _Behind:
    chains = {}
    for number in _indices(heads):
        inner = heads.under(f"{number}.")
        chains[number] = [] if inner.has(r"clf\.") else _indices(inner)
    whole = [n for n, chain in chains.items() if not chain or chain[-1] - chain[0] < len(chain)]
    if len(whole) != 1:
        raise CheckpointError(
            f"Of the heads {', '.join(map(str, chains))}, {len(whole)} can be the one for whole "
            "images.",
            hint="Describe the network with --declare arch=package.module:factory.",
        )
    (number,) = whole
    own = heads.only(f"{number}.")
    inside = (f"{number}.", chains[number]) if chains[number] else ("", [number])
    behind = _chain(own, *inside, declared)
    return _Behind(behind.tensors, behind.head, unused="the head for the patches of an image")


def _chain(heads: Weights, prefix: str, numbers: Sequence[int], declared: Declared) -> _Behind:
    """Return MLP heads that run one behind the other, as far as they are defined for one image.

    Between two of them stands an activation, the last of the former's Sequential, which leaves no
    trace in the file: every configuration of VISSL has one there. A number without tensors is
    ``siamese_concat_view``, which joins the patches of an image.
    """
    activation = declared.head_act or "relu"
    steps: list[Operation] = []
    used: list[str] = []
    for place, number in enumerate(numbers):
        block = f"{prefix}{number}.clf."
        steps += sequential(heads, block, activation)
        used.append(block)
        if place + 1 == len(numbers):
            break
        steps.append(act(activation))
        if numbers[place + 1] > number + 1:
            break
    notes: tuple[str, ...] = ()
    if len(numbers) > 1:
        notes = (
            f"The file does not say what stands between its heads: {activation}, as in every "
            "configuration of VISSL. --declare head_act=... changes it.",
        )
    return _Behind(
        heads.only(*used),
        steps,
        unused="behind the joining of several patches of one image",
        notes=notes,
    )


def _swav(heads: Weights, prefix: str, declared: Declared) -> _Behind:
    """Return the head of SwAV; its activation is the user's where it is used for DINO, as GELU."""
    key = f"{prefix}projection_head."
    for_dino = heads.has(re.escape(prefix) + r"prototypes0\.weight_v$")
    activation: Activation | None = declared.head_act or (None if for_dino else "relu")
    steps = sequential(heads, key, activation)
    if steps[-1].kind == "norm" and activation is not None:
        steps = (*steps, act(activation))
    return _Behind(heads, (*steps, l2()), _prototypes(heads, prefix))


def _dino(heads: Weights, prefix: str, declared: Declared) -> _Behind:
    """Return the head of DINO or iBOT; the prototypes of iBOT's patches are not needed."""
    heads = heads.without(f"{prefix}prototypes1.")
    if f"{prefix}mlp.weight" in heads:
        steps: tuple[Operation, ...] = (linear(f"{prefix}mlp"),)
    else:
        steps = sequential(heads, f"{prefix}mlp.", declared.head_act or "gelu")
    return _Behind(
        heads, (*steps, l2()), _prototypes(heads, prefix), unused="iBOT's prototypes of patches"
    )


def _msn(heads: Weights, prefix: str, declared: Declared) -> _Behind:
    """Return the head of MSN: ``Q`` are the cosines to the prototypes, before the temperature."""
    activation = declared.head_act or "gelu"
    steps: list[Operation] = []
    for number in (1, 2, 3):
        steps.append(linear(f"{prefix}fc.fc{number}"))
        if heads.has(re.escape(prefix) + rf"fc\.bn{number}\."):
            steps.append(norm(f"{prefix}fc.bn{number}"))
        if number < 3:
            steps.append(act(activation))
    prototypes = f"{prefix}prototypes"
    if prototypes not in heads:
        return _Behind(heads, (*steps, l2()))
    heads = heads.mapped(re.escape(prototypes), _directions)
    return _Behind(heads, (*steps, l2()), {"Q": (matrix(prototypes),)})


def _directions(prototypes: Tensor) -> Tensor:
    return functional.normalize(prototypes, dim=-1).mT


def _prototypes(heads: Weights, prefix: str) -> Mapping[str, Sequence[Operation]]:
    below = heads.under(prefix)
    operations = []
    for number in below.numbers("prototypes"):
        plain = f"prototypes{number}.weight" in below
        operations.append((linear if plain else weight_normed)(f"{prefix}prototypes{number}"))
    return numbered_logits(operations)


_SINGLE = {r"projection_head\.\d": _swav, r"mlp\.": _dino, r"fc\.fc1\.": _msn}
