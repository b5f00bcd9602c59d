"""The contact sheet: each latent varied by itself, and one object of each category."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from layerscope.render.catalogue import ObjectInstance, colour, shape
from layerscope.render.latents import Latents
from layerscope.render.renderer import Image, Renderer
from layerscope.render.scene import Scene
from layerscope.render.settings import RenderSettings
from layerscope.rendered_set import LATENTS

COLUMNS = 8
LARGEST_TILE = 128
MARGIN = 96
GAP = 2
VARIED = "skateboard"
"""The category that the rows show, as in the paper's figure."""

TYPICAL = Latents(
    yaw=0.0,
    pitch=0.0,
    roll=0.5,
    floor_hue=0.6,
    spot_theta=math.pi / 6,
    spot_phi=0.75 * math.pi,
    spot_hue=0.95,
)
"""What stays fixed while one latent varies."""


def contact_sheet(
    instances: Sequence[ObjectInstance], settings: RenderSettings, renderer: Renderer
) -> Pillow.Image:
    """Return a sheet with one labelled row for each latent and a block of all categories."""
    settings = replace(settings, size=min(settings.size, LARGEST_TILE))

    def render(shown: ObjectInstance, latents: Latents) -> Image:
        seed = settings.seed
        scene = Scene(shown.name, shape(shown, seed), colour(shown, seed), latents)
        return renderer.render(scene, settings.size, settings.samples, 0)

    varied = next((it for it in instances if it.category == VARIED), instances[0])
    rows = [
        (name, [render(varied, replace(TYPICAL, **{name: value})) for value in _steps(name)])
        for name in LATENTS
    ]
    firsts = list({it.category: it for it in reversed(instances)}.values())[::-1]
    block = [(it.category, render(it, TYPICAL)) for it in firsts]
    return _compose_sheet(rows, block, settings.size)


def _steps(name: str) -> list[float]:
    """Return values of a latent, evenly from its lowest to its highest."""
    values: list[float] = np.linspace(*LATENTS[name][:2], COLUMNS).tolist()
    return values


def _compose_sheet(
    rows: Sequence[tuple[str, Sequence[Image]]], block: Sequence[tuple[str, Image]], size: int
) -> Pillow.Image:
    step, title = size + GAP, 14
    block_rows = -(-len(block) // COLUMNS)
    height = len(rows) * step + block_rows * (step + title)
    sheet = Pillow.new("RGB", (MARGIN + COLUMNS * step, height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (name, images) in enumerate(rows):
        pen.text((4, number * step + size // 2 - 6), name, fill="black")
        for column, image in enumerate(images):
            sheet.paste(Pillow.fromarray(image), (MARGIN + column * step, number * step))
    for number, (name, image) in enumerate(block):
        row, column = divmod(number, COLUMNS)
        corner = MARGIN + column * step, len(rows) * step + row * (step + title)
        pen.text((corner[0] + 2, corner[1] + 1), name, fill="black")
        sheet.paste(Pillow.fromarray(image), (corner[0], corner[1] + title))
    return sheet
