"""A network read for its features: eval mode, no gradients, taps at its cuts, and nothing moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from layerscope.data import Loader, Preparation
from layerscope.errors import CheckpointError, SourceError
from layerscope.extraction.batchnorm import calibrated
from layerscope.models import open_taps
from layerscope.models.files.weights import sha256_of_tensors
from layerscope.models.taps import Taps, on_host, under_way
from layerscope.runtime.timers import StageTimer
from layerscope.types import CutModel, CutPoint, Precision

FeatureBatch = dict[str, npt.NDArray[np.float32]]
Valid = npt.NDArray[np.bool_]
CapturedBatch = tuple[npt.NDArray[np.int64], FeatureBatch, Valid]
"""Rows of the source, their features by cut and pooling, and which images could be read."""
PendingFeatures = Callable[[], FeatureBatch] | None
"""Waits for the features of a forward pass; None where no image could be read."""


@contextmanager
def capturing(
    model: CutModel,
    cuts: Sequence[CutPoint],
    loader: Loader,
    device: torch.device,
    precision: Precision = "float32",
    *,
    calibrate: bool = True,
) -> Iterator[FeatureCapture]:
    """Put a network on a device in eval mode with taps at its cuts, and give it back as it was.

    Args:
        model: The network.
        cuts: Some of its cut points, a cut once for each of its poolings.
        loader: Of the images, some of which recalibrate BatchNorms where that was declared.
        device: Where it computes.
        precision: In which it computes.
        calibrate: Whether features are wanted, not only the time that they take.
    """
    with (
        _evaluating(model.module, device),
        calibrated(model, loader, device) if calibrate else nullcontext(),
        open_taps(model, cuts) as taps,
        torch.inference_mode(),
    ):
        yield FeatureCapture(model, cuts, taps, device, precision, loader)


class FeatureCapture:
    """A network whose features are captured: batches in, arrays of pooled features out.

    Made by :func:`capturing`.
    """

    def __init__(
        self,
        model: CutModel,
        cuts: Sequence[CutPoint],
        taps: Taps,
        device: torch.device,
        precision: Precision,
        loader: Loader,
    ) -> None:
        self.difference: dict[str, float] | None = None
        self._preparation = Preparation(loader.request.preprocessing)
        self._model = model
        self._cuts = cuts
        self._taps = taps
        self._device = device
        self._precision = precision
        self._state = state_hash(model.module)
        self._first = True

    def features(self, images: Tensor, valid: Valid) -> FeatureBatch:
        """Return (b, width) features by cut and pooling; rows of unreadable images are NaN."""
        return self._wait_for(self._launch(images, valid), valid)

    def run(self, loader: Loader, watch: StageTimer) -> Iterator[CapturedBatch]:
        """Yield every batch of a loader; a GPU computes one while the one before is used.

        Raises:
            SourceError: An image cannot be read.
            CheckpointError: Features are not finite, or the network changes at once.
        """
        ids = loader.request.source.ids
        latest: tuple[npt.NDArray[np.int64], PendingFeatures, Valid] | None = None
        try:
            with closing(iter(loader)) as batches:
                for rows, images in watch.waiting_for(batches):
                    valid = ~np.isin(rows, [bad.row for bad in loader.bad])
                    launched = rows, self._launch(images, valid), valid
                    due, latest = latest, launched
                    if due is not None:
                        yield self._require_sound(*due, ids)
        except SourceError:
            if latest is not None:  # a bad image does not cost the good ones before it
                yield self._require_sound(*latest, ids)
            raise
        if latest is not None:
            yield self._require_sound(*latest, ids)

    def sample(self, loader: Loader) -> FeatureBatch:
        """Return the features of a loader's images, those that can be read, all together."""
        batches = [features for _, features, _ in self.run(loader, StageTimer())]
        whole = {cut.key: np.concatenate([b[cut.key] for b in batches]) for cut in self._cuts}
        return {key: rows[np.isfinite(rows).all(1)] for key, rows in whole.items()}

    def changed(self) -> bool:
        """Return whether a parameter or buffer differs from what it was at the start."""
        return state_hash(self._model.module) != self._state

    def settings(self) -> dict[str, Any]:
        """Return what belongs into the cache's record of how it was made."""
        return {
            "device": str(self._device),
            "state_sha256": self._state,
            "bfloat16_difference": self.difference,
        }

    def _require_sound(
        self,
        rows: npt.NDArray[np.int64],
        launched: PendingFeatures,
        valid: Valid,
        ids: Sequence[str],
    ) -> CapturedBatch:
        features = self._wait_for(launched, valid)
        require_finite(features, valid, [ids[row] for row in rows])
        return rows, features, valid

    def _launch(self, images: Tensor, valid: Valid) -> PendingFeatures:
        """Begin a forward pass; on a GPU it need not have ended."""
        if not valid.any():
            return None
        batch = self._place(images if valid.all() else images[torch.from_numpy(valid)])
        pooled = self._forward(batch, self._precision)
        if self._first:
            self._inspect(batch, on_host(pooled))
        return under_way(pooled)

    def _wait_for(self, launched: PendingFeatures, valid: Valid) -> FeatureBatch:
        pooled = {} if launched is None else launched()
        return {cut.key: _scatter(pooled.get(cut.key), valid, cut) for cut in self._cuts}

    def _place(self, images: Tensor) -> Tensor:
        placed = self._preparation.placed(images, self._device)
        if self._device.type == "cpu":  # the layout in which convolutions on a CPU are fastest
            return placed.contiguous(memory_format=torch.channels_last)
        return placed

    def _forward(self, batch: Tensor, precision: Precision) -> dict[str, Tensor]:
        half = precision == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
            return self._taps.run_poolings(batch)

    def _inspect(self, batch: Tensor, pooled: FeatureBatch) -> None:
        # After one batch rather than after an hour: most networks that drift do so at once.
        self._first = False
        if self.changed():
            raise drift(self._model, "No row was written")
        if self._precision == "bfloat16":
            exact = on_host(self._forward(batch, "float32"))
            self.difference = {
                name: relative_difference(pooled[name], exact[name]) for name in exact
            }


def _scatter(
    pooled: npt.NDArray[np.float32] | None, valid: Valid, cut: CutPoint
) -> npt.NDArray[np.float32]:
    rows = np.full((len(valid), cut.width), np.nan, dtype=np.float32)
    if pooled is None:
        return rows
    if pooled.shape != (valid.sum(), cut.width):
        raise CheckpointError(
            f"The cut {cut.name!r} gives features of shape {pooled.shape}, not "
            f"{(int(valid.sum()), cut.width)}.",
            hint="The cut point's width does not describe this network.",
        )
    if valid.all():
        return pooled
    rows[valid] = pooled
    return rows


def require_finite(features: FeatureBatch, valid: Valid, ids: Sequence[str]) -> None:
    """Refuse (b, width) features that are not finite, of images that could be read.

    Raises:
        CheckpointError: Some are not; the message names the cut and the image.
    """
    for name, rows in features.items():
        wrong = np.flatnonzero(valid & ~np.isfinite(rows).all(axis=1))
        if wrong.size:
            raise CheckpointError(
                f"The cut {name.rpartition('@')[0]!r} gives features that are not finite for "
                f"{ids[wrong[0]]!r}.",
                hint="Look at the weights for NaN, or extract with --precision float32.",
            )


def drift(model: CutModel, consequence: str) -> CheckpointError:
    """Return the error for a network that changes while it is read."""
    return CheckpointError(
        f"The network {model.checkpoint.name!r} changed its own parameters or buffers while its "
        "features were read, so they cannot be trusted.",
        hint=f"{consequence}; find the layer that updates statistics in eval mode.",
    )


def state_hash(module: nn.Module) -> str:
    """Return the sha256 of all parameters and buffers, those outside the state dict too."""
    return sha256_of_tensors(dict(module.named_parameters()) | dict(module.named_buffers()))


def relative_difference(rows: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> float:
    """Return ``‖rows - exact‖ / ‖exact‖``, in float64; 0 when both are zero."""
    reference = np.asarray(exact, dtype=np.float64)
    norm = float(np.linalg.norm(reference))
    gap = float(np.linalg.norm(rows - reference))
    return gap / norm if norm else float(gap > 0)


@contextmanager
def _evaluating(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Put the network on the device in eval mode and exact float32; give its modes back."""
    modes = [(part, part.training) for part in module.modules()]
    convolution, product = torch.backends.cudnn, torch.backends.cuda.matmul
    tf32 = convolution.allow_tf32, product.allow_tf32
    try:
        # TF32 keeps ten bits of the mantissa, and convolutions use it unless told otherwise.
        convolution.allow_tf32 = product.allow_tf32 = False
        module.eval().to(device)
        if device.type == "cpu":
            module.to(memory_format=torch.channels_last)
        yield
    finally:
        convolution.allow_tf32, product.allow_tf32 = tf32
        for part, training in modes:
            part.training = training
