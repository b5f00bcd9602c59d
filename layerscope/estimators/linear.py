"""A fitted linear probe: what is left of a fit, and all that other images need to be judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from layerscope.estimators.preparation import Preparation
from layerscope.stats.spectrum import Standardiser

FORMAT = "layerscope-probe/2"
"""Of the arrays that a probe is stored as; those before had zeros in the place of some features."""


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A classifier on the features of one cut."""

    preparation: Preparation
    """Of features as the network gives them."""
    standardiser: Standardiser
    """Of the training rows, prepared."""
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
        return self.standardiser(self.preparation(rows)) @ self.weights + self.intercept

    def predict(self, rows: Tensor) -> npt.NDArray[np.int64]:
        """Return the (n,) most likely classes."""
        predicted: npt.NDArray[np.int64] = self.labels[self.logits(rows).argmax(1).numpy()]
        return predicted

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what :func:`probe_from` takes back."""
        return {
            "format": np.array(FORMAT),
            "exponent": np.array([self.preparation.exponent]),
            "low": self.preparation.low.numpy(),
            "high": self.preparation.high.numpy(),
            "mean": self.standardiser.mean.numpy(),
            "scale": self.standardiser.scale.numpy(),
            "weights": self.weights.numpy(),
            "intercept": self.intercept.numpy(),
            "labels": self.labels,
            "penalty": np.array([self.penalty]),
        }


def probe_from(arrays: Mapping[str, npt.NDArray[Any]]) -> LinearProbe | None:
    """Return the probe that was stored as arrays, or None of another version's."""
    if str(arrays.get("format", "")) != FORMAT:
        return None
    bounds = (torch.from_numpy(arrays[name]) for name in ("low", "high"))
    return LinearProbe(
        Preparation(int(arrays["exponent"][0]), *bounds),
        Standardiser(torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["scale"])),
        torch.from_numpy(arrays["weights"]),
        torch.from_numpy(arrays["intercept"]),
        arrays["labels"].astype(np.int64),
        float(arrays["penalty"][0]),
    )
