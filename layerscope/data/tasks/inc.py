"""ImageNet-C: the validation images of ImageNet under 15 corruptions and 4 more, 5 severities each.

The folder holds ``<corruption>/<severity>/<wnid>/ILSVRC2012_val_*.JPEG``. Nothing is trained on it:
``layerscope evaluate`` fits probes on clean ImageNet (the task ``in1k``) and streams these images
through the network once. They are 224 pixels already, and resampling would change the corruption:
they are cropped, never resized (as hendrycks/robustness, ``ImageNet-C/test.py``).

The mean corruption error (mCE) is over the 15; the four extra corruptions are reported and are no
part of it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from layerscope.data.assembly import assemble
from layerscope.data.listing import image_files, require_folder, subfolders
from layerscope.data.shifts import Condition, Shift, shifts
from layerscope.data.sources import tasks
from layerscope.errors import SourceError
from layerscope.types import Source, Task

ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""By corruption: AlexNet's top-1 error, averaged over the severities (hendrycks/robustness)."""
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)

TASK = Task(
    name="inc",
    source="inc",
    kind="classes",
    metric="mce",
    direction="minimise",
    title="ImageNet-C",
    class_count=1000,
    split="no image trains; probes of in1k are evaluated on every corruption and severity",
    licence="CC BY 4.0; ImageNet terms of access",
    citation="Hendrycks and Dietterich (2019), Benchmarking Neural Network Robustness",
)
tasks.add(TASK.name, TASK)

_LAYOUT = "It holds a folder for each corruption, in that one for each severity from 1 to 5."


@shifts.register(TASK.name)
def open_inc(root: Path) -> Shift:
    """Return the conditions that a folder holds, in the order of the paper.

    Raises:
        SourceError: There is no corruption, or one without all severities.
    """
    require_folder(root, hint=_LAYOUT)
    there = [name for name in (*ALEXNET, *EXTRA) if (root / name).is_dir()]
    if not there:
        raise SourceError(f"The folder {str(root)!r} holds no corruption.", hint=_LAYOUT)
    for name in there:
        require_folder(root / name, *map(str, SEVERITIES), hint=_LAYOUT)
    conditions = tuple(
        Condition(
            f"{name}-{severity}",
            name,
            severity,
            partial(_open_condition, root / name / str(severity), f"inc-{name}-{severity}"),
        )
        for name in there
        for severity in SEVERITIES
    )
    return Shift(TASK.name, conditions, ALEXNET, task="in1k")


def _open_condition(folder: Path, name: str) -> Source:
    classes = subfolders(folder)
    found = image_files(folder)
    places = {wnid: place for place, wnid in enumerate(classes)}
    loose = [it.path for it in found if it.path.partition("/")[0] not in places]
    if loose:
        raise SourceError(f"{str(folder / loose[0])!r} lies in no class.", hint=_LAYOUT)
    labels = np.array([places[it.path.partition("/")[0]] for it in found], np.int64)
    task = Task(name, name, "classes", "top-1", "maximise", classes=classes)
    return assemble(
        name,
        folder,
        [it.path for it in found],
        np.full(len(found), "test"),
        {task: labels},
        sizes=[it.size for it in found],
        framing="crop",
        test_only=True,
    )
