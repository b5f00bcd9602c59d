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
    varied = next((instance for instance in instances if instance.category == VARIED), instances[0])
    rows = [(name, _render_steps(varied, name, settings, renderer)) for name in LATENTS]
    firsts = list({instance.category: instance for instance in reversed(instances)}.values())[::-1]
    block = [
        (instance.category, _render_small(instance, TYPICAL, settings, renderer))
        for instance in firsts
    ]
    return _compose_sheet(rows, block, settings.size)


def _render_steps(
    instance: ObjectInstance, name: str, settings: RenderSettings, renderer: Renderer
) -> list[Image]:
    low, high, _ = LATENTS[name]
    steps = np.linspace(low, high, COLUMNS).tolist()
    return [
        _render_small(instance, replace(TYPICAL, **{name: value}), settings, renderer)
        for value in steps
    ]


def _render_small(
    instance: ObjectInstance, latents: Latents, settings: RenderSettings, renderer: Renderer
) -> Image:
    seed = settings.seed
    scene = Scene(instance.name, shape(instance, seed), colour(instance, seed), latents)
    return renderer.render(scene, settings.size, settings.samples, 0)


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
