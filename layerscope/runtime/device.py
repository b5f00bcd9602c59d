"""The device that a user's word stands for: never another one without a word."""

from __future__ import annotations

import torch

from layerscope.errors import DeviceError


def choose_device(name: str, place: int = 0) -> torch.device:
    """Return the device that a user's word stands for.

    Args:
        name: ``auto`` for a CUDA device if there is one and the CPU otherwise, or its name.
        place: Of this process among those on the machine: each takes another CUDA device, unless
            one was named by its number.

    Raises:
        DeviceError: The named device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and place:
        name = f"cuda:{place}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise _no_device(name, "is no name of a device") from None
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if (device.index or 0) >= counts.get(device.type, 0):
        raise _no_device(name, "is not there")
    return device


def _no_device(name: str, what: str) -> DeviceError:
    count = torch.cuda.device_count()
    return DeviceError(
        f"The device {name!r} {what}.",
        hint=f"This machine has {count} CUDA device{'s' * (count != 1)}; use --device auto or cpu.",
    )
