"""Images and the questions asked of them: sources, tasks, transforms and the loader."""

from layerscope.data.images import read_image
from layerscope.data.loaders import DECODER, BadImage, Loader
from layerscope.data.sources import all_tasks, open_source, select_tasks, sources, thin
from layerscope.data.transforms import image_transform

__all__ = [
    "DECODER",
    "BadImage",
    "Loader",
    "all_tasks",
    "image_transform",
    "open_source",
    "read_image",
    "select_tasks",
    "sources",
    "thin",
]
