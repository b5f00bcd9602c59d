"""A fitted linear probe: what is left of a fit, and all that other images need to be judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.stats.spectrum import Standardiser


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A classifier on the features of one cut."""

    standardiser: Standardiser
    """Of the training rows."""
    weights: Tensor
    """(d, c) float64, for standardised features."""
    intercept: Tensor
    """(c,) float64."""
    labels: npt.NDArray[np.int64]
    """(c,) the class that each column stands for."""
    penalty: float
    """The λ that validation chose."""

    def logits(self, rows: Tensor) -> Tensor:
        """Return (n, c) float64 of (n, d) features as the network gives them."""
        return self.standardiser(rows) @ self.weights + self.intercept

    def predict(self, rows: Tensor) -> npt.NDArray[np.int64]:
        """Return the (n,) most likely classes."""
        predicted: npt.NDArray[np.int64] = self.labels[self.logits(rows).argmax(1).numpy()]
        return predicted

    def arrays(self) -> dict[str, npt.NDArray[np.float64] | npt.NDArray[np.int64]]:
        """Return what :func:`probe_from` takes back."""
        return {
            "mean": self.standardiser.mean.numpy(),
            "scale": self.standardiser.scale.numpy(),
            "weights": self.weights.numpy(),
            "intercept": self.intercept.numpy(),
            "labels": self.labels,
            "penalty": np.array([self.penalty]),
        }


def probe_from(arrays: dict[str, npt.NDArray[np.float64]]) -> LinearProbe:
    """Return the probe that was stored as arrays."""
    return LinearProbe(
        Standardiser(torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["scale"])),
        torch.from_numpy(arrays["weights"]),
        torch.from_numpy(arrays["intercept"]),
        arrays["labels"].astype(np.int64),
        float(arrays["penalty"][0]),
    )
