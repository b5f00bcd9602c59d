"""What a renderer is, and the registry of those that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from layerscope.registry import Registry
from layerscope.render.scene import Scene

Image = npt.NDArray[np.uint8]


class Renderer(Protocol):
    """Turns scenes into images; made once for each process.

    Making one must load nothing heavy, and raise ``RenderError`` only when it is first used.
    """

    name: str

    def version(self) -> str:
        """Return the version that, with the name, decides the pixels."""
        ...

    def render(self, scene: Scene, size: int, samples: int, seed: int) -> Image:
        """Return a (size, size, 3) sRGB image; equal arguments give equal pixels."""
        ...


renderers: Registry[Callable[[], Renderer]] = Registry(
    "renderer", package="layerscope.render.backends", group="layerscope.renderers"
)
"""Makers of renderers by name."""
