"""``.beton`` files, FFCV's format: a source in one file, written and read without FFCV."""

from layerscope.data.betons.images import BetonImages
from layerscope.data.betons.opening import open_beton, open_packed
from layerscope.data.betons.packing import PackReport, pack

__all__ = ["BetonImages", "PackReport", "open_beton", "open_packed", "pack"]
