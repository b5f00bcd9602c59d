"""Does tapping every cut of a network at 224 px cost anything over its plain forward?

    python benchmarks/extraction.py [--device cpu] [--batches 24] [--batch-size 16]

Both run on the same batches in turn, so that a drift of the machine's speed cancels; the figure is
the median of the ratios batch by batch. The tapped run has its features on the host at the end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import timm
import torch
import torchvision

from layerscope.models import load, open_taps
from layerscope.models.taps import on_host
from layerscope.runtime.device import choose_device

NETWORKS = {
    "ResNet-50": lambda: torchvision.models.resnet50(),
    "ViT-B/16": lambda: timm.create_model("vit_base_patch16_224"),
}


def seconds(function, batch):
    start = time.perf_counter()
    function(batch)
    if batch.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def loaded(build):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.pth"
        torch.save(build().state_dict(), path)
        return load(path)


def compare(model, device, batches, batch_size):
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    module = model.module.to(device, memory_format=layout)
    images = [
        torch.randn(batch_size, 3, 224, 224).to(device, memory_format=layout)
        for _ in range(batches)
    ]

    def tapped(batch):
        with open_taps(model, model.cuts) as taps:
            return on_host(taps.run(batch))

    plain_seconds, tapped_seconds = [], []
    with torch.inference_mode():
        for warm_up in images[:2]:
            module(warm_up), tapped(warm_up)
        for number, batch in enumerate(images):
            # Who goes first alternates, since the second run finds warmer caches.
            for turn in (number, number + 1):
                if turn % 2:
                    plain_seconds.append(seconds(module, batch))
                else:
                    tapped_seconds.append(seconds(tapped, batch))
    ratio = statistics.median(a / b for a, b in zip(plain_seconds, tapped_seconds, strict=True))
    return ratio, batch_size / statistics.median(tapped_seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    device = choose_device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}, {torch.get_num_threads()} threads")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for title, build in NETWORKS.items():
        model = loaded(build)
        ratio, rate = compare(model, device, options.batches, options.batch_size)
        print(
            f"{title}, {len(model.cuts)} cuts: tapped {rate:.1f} images/s, "
            f"throughput against the plain forward {ratio:.3f}"
        )


if __name__ == "__main__":
    main()
