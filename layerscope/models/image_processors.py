"""Image processors of Hugging Face transformers: what preprocessor_config.json tells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents
from layerscope.types import Preprocessing

PREPROCESSOR = "preprocessor_config.json"
_PROCESSOR = "processor_config.json"

_RESAMPLING: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
"""By PIL's number."""
_CROPPING = ("CLIP", "Bit")
"""What the names of the classes begin with that crop unless told otherwise."""
_WHITE = 255.0


def processor_beside(contents: Contents) -> Mapping[str, Any] | None:
    """Return the settings of the image processor that lies beside a file; None without one.

    Raises:
        CheckpointError: They are no settings of an image processor.
    """
    settings = contents.beside.get(PREPROCESSOR)
    if settings is None:
        settings = contents.beside.get(_PROCESSOR)
        if isinstance(settings, Mapping):
            settings = settings.get("image_processor")
    if settings is None or isinstance(settings, Mapping):
        return settings
    raise CheckpointError(
        f"The {PREPROCESSOR} beside the file describes no image processor.",
        hint="Mend it, or take it away.",
    )


def preprocessing_of(settings: Mapping[str, Any], usual: Preprocessing) -> Preprocessing:
    """Return what an image processor does to an image before the network sees it.

    Args:
        settings: The processor's; what they do not tell is the usual.
        usual: Preprocessing of its class.

    Raises:
        CheckpointError: The settings are damaged, or ask for what LayerScope does not do.
    """
    crop = _crop(settings, usual)
    resize = _resize(settings, usual, crop)
    if isinstance(resize, int) and crop is None:
        crop = resize  # networks see squares
    filters = settings.get("resample", {"bilinear": 2, "bicubic": 3}[usual.interpolation])
    if filters not in _RESAMPLING:
        raise _unsupported("resample", filters, "2 (bilinear) and 3 (bicubic) are supported")
    mean, std = _statistics(settings, usual)
    return Preprocessing(resize, crop, mean, std, _RESAMPLING[filters])


def _crop(settings: Mapping[str, Any], usual: Preprocessing) -> int | None:
    kind = str(settings.get("image_processor_type", settings.get("feature_extractor_type", "")))
    crops = "crop_size" in settings or kind.startswith(_CROPPING)
    if not settings.get("do_center_crop", crops):
        return None
    size = settings.get("crop_size", usual.crop)
    if isinstance(size, Mapping) and size.get("height") == size.get("width"):
        size = size.get("height")
    return _side("crop_size", size)


def _resize(
    settings: Mapping[str, Any], usual: Preprocessing, crop: int | None
) -> int | tuple[int, int] | None:
    if not settings.get("do_resize", True):
        return None
    size = settings.get("size")
    if size is None:
        return usual.resize
    if isinstance(size, Mapping) and {"height", "width"} <= set(size):
        return _side("size", size["height"]), _side("size", size["width"])
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return _side("size", size["shortest_edge"])
    # One number was the shorter side before a crop, and both sides without one.
    return _side("size", size) if crop is not None else (_side("size", size),) * 2


def _side(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _unsupported(name, value, "a number, shortest_edge, or height and width are")
    return value


def _statistics(
    settings: Mapping[str, Any], usual: Preprocessing
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of values in [0, 1], whatever range they are given in."""
    rescaled = settings.get("do_rescale", True)
    factor = settings.get("rescale_factor", 1 / _WHITE) if rescaled else 1.0
    if not isinstance(factor, int | float) or not factor > 0:
        raise _unsupported("rescale_factor", factor, "a positive number is")
    scale = 1.0 if math.isclose(factor * _WHITE, 1.0) else factor * _WHITE
    if not settings.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1 / scale, 1 / scale, 1 / scale)
    return (
        _channels("image_mean", settings.get("image_mean", usual.mean), scale),
        _channels("image_std", settings.get("image_std", usual.std), scale),
    )


def _channels(name: str, values: Any, scale: float) -> tuple[float, float, float]:
    fine = isinstance(values, Sequence) and len(values) == 3
    if not fine or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        raise _unsupported(name, values, "three numbers are")
    return float(values[0]) / scale, float(values[1]) / scale, float(values[2]) / scale


def _unsupported(name: str, value: Any, supported: str) -> CheckpointError:
    return CheckpointError(
        f"The {PREPROCESSOR} beside the file has {name} {value!r}, which is not supported.",
        hint=f"Of {name}, {supported}; mend the file, or take it away.",
    )
