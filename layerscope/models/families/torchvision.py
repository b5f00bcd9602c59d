"""torchvision's networks for classification, with their classifier or without."""

from __future__ import annotations

import re
from dataclasses import replace

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents, Weights
from layerscope.models.declared import Declared
from layerscope.models.families import Family, Parts, register
from layerscope.models.families.byol_deepmind import statistics_last
from layerscope.models.families.simclr_v1 import CONVERSION, is_converted, is_uncounted
from layerscope.models.heads import linear
from layerscope.models.preprocessing import IMAGENET
from layerscope.models.trunks import TrunkFacts, build_trunk, resnet, zoo
from layerscope.models.trunks.architectures import Architecture, all_names
from layerscope.models.trunks.published import Published, all_architectures, find_published
from layerscope.types import Preprocessing

_CLASSIFIER = frozenset({"fc.weight", "fc.bias"})
_TIMM = ("state_dict_ema", "model_ema")
_ANTIALIASED = re.compile(r"resnet(aa|blur)\d+$")
_TRANSFORMING = ("googlenet", "inception_v3")


@register
class Torchvision(Family):
    """The state dicts of torchvision's networks."""

    name = "torchvision"
    title = "torchvision"
    layout = "as torchvision's models name them: conv1., layer1., fc.; features., classifier."
    source = "pytorch/vision torchvision/models"
    general = True

    def recognise(self, contents: Contents) -> str:
        weights = contents.state_dict
        if _of_timm(contents) or is_converted(weights) or statistics_last(weights):
            return ""
        if _is_resnet(weights):
            return "conv1, bn1 and layer1 to layer4, and nothing else but fc"
        found = [a for a in zoo.candidates(weights.shapes) if a.library == "torchvision"]
        return f"the names and shapes of {found[0].title}" if found else ""

    def parts(self, contents: Contents, declared: Declared) -> Parts:
        weights = contents.state_dict
        published = find_published(contents.file, all_architectures("torchvision"))
        build = _resnet_parts if _is_resnet(weights) else _parts
        return build(weights, declared, published)


def _of_timm(contents: Contents) -> bool:
    """Return whether the file says that it is of another library's architecture."""
    if contents.names() & set(_TIMM):
        return True
    if "architecture" in contents.beside.get("config.json", {}):
        return True
    named = contents.value("arch")
    return isinstance(named, str) and named not in all_names("torchvision")


def _is_resnet(weights: Weights) -> bool:
    classifier = set(weights.only("fc."))
    trunk = weights.without("fc.")
    return (
        classifier in (set(), _CLASSIFIER)
        and "bn1.running_mean" in trunk
        and resnet.fits(trunk.shapes)
    )


def _resnet_parts(weights: Weights, declared: Declared, published: Published | None) -> Parts:
    classifier = weights.only("fc.")
    trunk = build_trunk(weights.without("fc."), TrunkFacts(), declared)
    notes = list(_notes(published))
    if published is None and is_uncounted(weights):
        notes.append(CONVERSION)
    others = [a for a in zoo.candidates(weights.shapes) if _ANTIALIASED.match(a.name)]
    if published is None and others:
        notes.append(
            f"{' and '.join(a.title for a in others)}, which filter before they downsample, have "
            f"the same tensors; if the file is of one of them, say --declare arch={others[0]}."
        )
    return Parts(
        trunk=trunk,
        tensors=classifier,
        head=(linear("fc"),) if classifier else (),
        notes=notes,
        preprocessing=_preprocessing(published),
    )


def _parts(weights: Weights, declared: Declared, published: Published | None) -> Parts:
    named = None if published is None else _as_published(published.architecture)
    found = zoo.find_network(weights, declared, named=named, prefer="torchvision")
    if named is None and found.architecture.name in _TRANSFORMING:
        raise CheckpointError(
            f"The file does not tell whether its {found.architecture.name} normalises its images "
            "itself (transform_input), as the weights that torchvision publishes do.",
            hint="Name a factory that settles it: --declare arch=package.module:factory.",
        )
    return Parts(
        trunk=found.trunk,
        tensors=found.classifier,
        head=found.head,
        ignored=found.ignored,
        notes=_notes(published),
        preprocessing=_preprocessing(published),
    )


def _as_published(architecture: Architecture) -> Architecture:
    if architecture.name not in _TRANSFORMING:
        return architecture
    return replace(architecture, settings={"transform_input": True})


def _preprocessing(published: Published | None) -> Preprocessing:
    return IMAGENET if published is None else published.preprocessing


def _notes(published: Published | None) -> tuple[str, ...]:
    if published is not None:
        return (f"Its preprocessing is that of torchvision's {published.name}, which it is.",)
    return (
        "The file does not tell what its images looked like: resized to 256 and cropped to 224 "
        "pixels is torchvision's usual preprocessing; a card states another.",
    )
