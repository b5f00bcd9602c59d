"""How many images a minute does the default renderer make?

python benchmarks/render.py [--objects 16] [--views 15] [--samples 9]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from layerscope.render import RenderSettings, render_dataset, renderers


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=16)
    parser.add_argument("--views", type=int, default=15)
    parser.add_argument("--samples", type=int, default=RenderSettings().samples)
    options = parser.parse_args()
    settings = RenderSettings(objects=options.objects, views=options.views, samples=options.samples)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        render_dataset(Path(folder) / "set", settings)
        seconds = time.perf_counter() - start
    images = options.objects * options.views
    name = settings.renderer
    print(f"{name} {renderers[name]().version()}, {os.cpu_count()} cores, {settings.size} px")
    print(f"{images} images in {seconds:.1f} s, start-up and preview included")
    print(f"{60 * images / seconds:.0f} images a minute at {settings.samples} samples a pixel")


if __name__ == "__main__":
    main()
