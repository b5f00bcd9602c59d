"""Images and the questions asked of them: sources, tasks, transforms and the loaders."""

from layerscope.data.augmentation import Augmentation, augmentations
from layerscope.data.augmented_views import ViewSettings, with_views
from layerscope.data.images import read_image
from layerscope.data.loaders import BadImage, Loader, ReadRequest
from layerscope.data.sources import all_tasks, open_source, select_tasks, thin_source
from layerscope.data.transforms import Preparation, frame_preprocessing, image_transform

__all__ = [
    "Augmentation",
    "BadImage",
    "Loader",
    "Preparation",
    "ReadRequest",
    "ViewSettings",
    "all_tasks",
    "augmentations",
    "frame_preprocessing",
    "image_transform",
    "open_source",
    "read_image",
    "select_tasks",
    "thin_source",
    "with_views",
]
