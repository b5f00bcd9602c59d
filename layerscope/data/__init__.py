"""Images and the questions asked of them: sources, tasks, transforms and the loaders."""

from layerscope.data.augmentation import Augmentation, augmentations
from layerscope.data.augmented_views import Views, with_views
from layerscope.data.images import read_image
from layerscope.data.loaders import BadImage, Loader, Reading
from layerscope.data.sources import all_tasks, open_source, select_tasks, thin
from layerscope.data.transforms import Preparation, framed, image_transform

__all__ = [
    "Augmentation",
    "BadImage",
    "Loader",
    "Preparation",
    "Reading",
    "Views",
    "all_tasks",
    "augmentations",
    "framed",
    "image_transform",
    "open_source",
    "read_image",
    "select_tasks",
    "thin",
    "with_views",
]
