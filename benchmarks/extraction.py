"""Does tapping every cut of a ResNet-50 at 224 px cost anything over its plain forward?

    python benchmarks/extraction.py [--batches 24] [--batch-size 16]

Both run on the same batches in turn, so that a drift of the machine's speed cancels; the figure is
the median of the ratios batch by batch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torchvision

from layerscope.models import load, open_taps


def seconds(function, batch):
    start = time.perf_counter()
    function(batch)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.pth"
        torch.save(torchvision.models.resnet50().state_dict(), path)
        model = load(path)
    model.module.to(memory_format=torch.channels_last)
    batches = [
        torch.randn(options.batch_size, 3, 224, 224).to(memory_format=torch.channels_last)
        for _ in range(options.batches)
    ]
    plain, tapped = [], []
    with torch.inference_mode():
        model.module(batches[0])
        for number, batch in enumerate(batches):
            # Who goes first alternates, since the second run finds warmer caches.
            for turn in (number, number + 1):
                if turn % 2:
                    plain.append(seconds(model.module, batch))
                else:
                    with open_taps(model, model.cuts) as taps:
                        tapped.append(seconds(taps.run, batch))
    ratio = statistics.median(a / b for a, b in zip(plain, tapped, strict=True))
    rate = options.batch_size / statistics.median(tapped)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(model.cuts)} cuts")
    print(f"tapped {rate:.1f} images/s, throughput against the plain forward {ratio:.3f}")


if __name__ == "__main__":
    main()
