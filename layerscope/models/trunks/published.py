"""Weights that timm and torchvision publish, known by the digits in their files' names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import timm
from torchvision import models as torchvision_models

from layerscope.errors import CheckpointError
from layerscope.models.files.weights import sha256_of_file
from layerscope.models.preprocessing import IMAGENET
from layerscope.models.trunks.architectures import Architecture, all_names
from layerscope.types import Preprocessing

_DIGITS = re.compile(r"-([0-9a-f]{8})[0-9a-f]*\.\w+$")
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Published:
    """Weights of a library, and how its authors evaluated them."""

    architecture: Architecture
    name: str
    """The library's name of them: ``ResNet50_Weights.IMAGENET1K_V2``, ``resnet50.a1_in1k``."""
    settings: Any
    """torchvision's entry or timm's configuration."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What images go through before this network."""
        if self.architecture.library == "timm":
            return of_configuration(self.settings)
        return _of_transforms(self.settings.transforms())


def find_published(path: Path | None, among: Sequence[Architecture]) -> Published | None:
    """Return the published weights that a file holds, byte by byte; None where it holds others.

    Both libraries write the first eight digits of a file's sha256 into its name.
    """
    if path is None:
        return None
    known = [found for architecture in among for found in _published(architecture)]
    if not known:
        return None
    digits = sha256_of_file(path)[:_SHOWN]
    return next((found for own, found in known if own == digits), None)


def all_architectures(library: str) -> tuple[Architecture, ...]:
    """Return all architectures of torchvision, or of timm."""
    return tuple(Architecture(library, name) for name in all_names(library))  # type: ignore[arg-type]


@cache
def _published(architecture: Architecture) -> tuple[tuple[str, Published], ...]:
    entries = _timm if architecture.library == "timm" else _torchvision
    return tuple(
        (match[1], Published(architecture, name, settings))
        for name, url, settings in entries(architecture.name)
        if (match := _DIGITS.search(url))
    )


def _torchvision(name: str) -> Iterator[tuple[str, str, Any]]:
    for entry in torchvision_models.get_model_weights(name):
        yield str(entry), entry.url, entry


def _timm(name: str) -> Iterator[tuple[str, str, Any]]:
    for tagged in timm.list_models(f"{name}.*", pretrained=True):
        settings = timm.get_pretrained_cfg(tagged).to_dict()
        yield tagged, settings.get("url") or "", settings


def _of_transforms(transforms: Any) -> Preprocessing:
    """Return what torchvision's preset for classification does to an image."""
    return replace(
        IMAGENET,
        resize=transforms.resize_size[0],
        crop=transforms.crop_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=_interpolation(transforms.interpolation.value),
    )


def of_configuration(settings: Mapping[str, Any]) -> Preprocessing:
    """Return what timm does to an image in evaluation, for a pretrained configuration.

    Args:
        settings: ``input_size``, ``crop_pct``, ``crop_mode``, ``interpolation``, ``mean``, ``std``.

    Raises:
        CheckpointError: An entry is missing, or no preprocessing that LayerScope has.
    """
    try:
        height, width = (int(side) for side in settings["input_size"][1:])
        mean, std = (tuple(map(float, settings[name])) for name in ("mean", "std"))
        resize = math.floor(height / float(settings.get("crop_pct") or _CROP))
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f"The configuration of the weights is incomplete: {error}.",
            hint="It needs input_size, mean and std, as timm writes them.",
        ) from error
    if height != width or len(mean) != 3 or len(std) != 3:
        raise CheckpointError(
            f"The weights are for images of {height} × {width} pixels and {len(mean)} channels.",
            hint="Only square images of three channels are supported.",
        )
    mode = settings.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise CheckpointError(
            f"The configuration of the weights crops images by the mode {mode!r}.",
            hint="Write a card with the preprocessing that you want.",
        )
    return Preprocessing(
        resize=(resize, resize) if mode == "squash" else resize,
        crop=height,
        mean=mean,
        std=std,
        interpolation=_interpolation(settings.get("interpolation") or "bilinear"),
    )


_CROP = 0.875
"""timm's own where a configuration gives none."""


def _interpolation(name: str) -> Literal["bilinear", "bicubic"]:
    if name == "bilinear" or name == "bicubic":
        return name  # type: ignore[return-value]
    raise CheckpointError(
        f"The weights were evaluated with {name!r} resampling.",
        hint="Write a card with the preprocessing that you want.",
    )
