"""A renderer that draws latents as flat colours, and can break off after some images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from layerscope.render import RenderSettings, renderers


class Drawn:
    """Paints one colour that depends on everything that decides an image."""

    name = "drawn"
    release = "1"
    fuse: int | None = None
    count = 0

    def version(self) -> str:
        return Drawn.release

    def render(self, scene, size, samples, seed):
        if Drawn.fuse is not None and Drawn.count >= Drawn.fuse:
            raise KeyboardInterrupt
        Drawn.count += 1
        content = [*scene.latents.values(), *scene.colour, float(seed % 997)]
        image = np.resize(np.array(content) * 40, (size, size, 3))
        return (image % 256).astype(np.uint8)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known for one test only: no other test may find a renderer that users do not have."""
    monkeypatch.setitem(renderers._items, "drawn", Drawn)


@pytest.fixture
def drawn() -> Iterator[type[Drawn]]:
    Drawn.fuse, Drawn.count, Drawn.release = None, 0, "1"
    yield Drawn
    Drawn.fuse = None


@pytest.fixture
def small() -> RenderSettings:
    return RenderSettings(objects=5, views=3, size=16, seed=4, renderer="drawn", samples=1)
