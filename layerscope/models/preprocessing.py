"""What networks were evaluated with: sizes, crops, filters and channel statistics."""

from __future__ import annotations

from dataclasses import replace

from layerscope.types import Preprocessing

IMAGENET = Preprocessing(
    resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
"""What torchvision's classification networks were evaluated with."""

IMAGENET_BICUBIC = replace(IMAGENET, interpolation="bicubic")
"""The same with the filter of DINO, MAE and most vision transformers."""

CIFAR10 = Preprocessing(
    resize=32, crop=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
)
"""The channel statistics of CIFAR-10's training images."""

CLIP = Preprocessing(
    resize=224,
    crop=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    interpolation="bicubic",
)
"""OpenAI's CLIP, and most of OpenCLIP."""

UNNORMALISED = replace(IMAGENET, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Values in [0, 1] as they are, which the SimCLR networks of TensorFlow were trained on."""


def at_size(preprocessing: Preprocessing, side: int | None) -> Preprocessing:
    """Return the preprocessing for images of another side, resized in the same proportion.

    Examples:
        >>> at_size(IMAGENET, 448).resize
        512
    """
    if side is None or side == preprocessing.crop:
        return preprocessing
    resize, crop = preprocessing.resize, preprocessing.crop
    if isinstance(resize, int) and crop:
        return replace(preprocessing, resize=round(resize * side / crop), crop=side)
    return replace(preprocessing, resize=(side, side), crop=None)
