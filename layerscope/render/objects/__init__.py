"""Procedural objects: one file for each category, which draws a variant and joins its parts.

A builder takes a random generator and returns a mesh with z up and the front towards +y, of any
size. No object looks the same after a rotation, for then its rotation could not be told from an
image; mirror images may coincide.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from layerscope.registry import Registry
from layerscope.render.mesh import Mesh

Builder = Callable[[np.random.Generator], Mesh]

categories: Registry[Builder] = Registry(
    "category", package=__name__, group="layerscope.render_objects"
)
"""Builders by category."""
