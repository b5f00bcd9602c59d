"""Published protocols of linear evaluation, as far as features that are in a cache can repeat them.

Optimisers, rates, decays, schedules, epochs and batches are those of the papers' own code, read in
facebookresearch/barlowtwins, dino, dinov2, FFCV-SSL, mae, moco, simsiam, swav, vicreg and vissl,
lightly-ai/lightly, vturrisi/solo-learn, ZeenSong/UMM and megvii-research/US3L-CVPR2023. What a
published batch normalisation before the classifier does, standardising by the training rows'
statistics does here. CLIP's and MSN's protocols are logistic regressions, which ``logistic`` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from layerscope.stats.minibatch import Optimiser, Remainder
from layerscope.stats.schedules import Constant, Cosine, Exponential, Schedule, Steps

PREFIX = "sgd:"
PER = 256
"""Rows of a batch to which scaled rates refer (Goyal et al. 2017, "Accurate, Large Minibatch SGD",
section 2.1)."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One protocol."""

    title: str
    citation: str
    optimiser: Optimiser
    rates: tuple[float, ...]
    """Initial rates; of several, validation chooses one."""
    schedule: Schedule
    epochs: int = 100
    batch: int = 256
    scaled: bool = False
    """Whether the rates are those of batches of 256 rows and grow with the batch."""
    features: Literal["raw", "standardised"] = "raw"
    steps: int | None = None
    """Minibatches in all, where the protocol counts those and not the epochs."""
    remainder: Remainder = "kept"
    """What becomes of the rows at the end of an epoch that fill no batch."""

    def rates_for(self, batch: int) -> list[float]:
        """Return the initial rates of minibatches of so many rows."""
        return [rate * batch / PER if self.scaled else rate for rate in self.rates]


_BY_EPOCH = Cosine(by_epoch=True)
_PLAIN = Optimiser("sgd")
_VISSL = Optimiser("sgd", nesterov=True, decay=5e-4)
_LIGHT = Optimiser("sgd", decay=1e-6)
_VISSL_CITATION = "Goyal et al. 2019, Scaling and Benchmarking Self-Supervised Learning; VISSL"
_DINOV2_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)


def _vissl(what: str, epochs: int, schedule: Schedule) -> Preset:
    """Return VISSL's protocol, whose features pass a batch normalisation."""
    return Preset(
        f"VISSL's on {what}",
        _VISSL_CITATION,
        _VISSL,
        (0.01,),
        schedule,
        epochs,
        scaled=True,
        features="standardised",
    )


PRESETS: Mapping[str, Preset] = {
    "barlow": Preset(
        "Barlow Twins'", "Zbontar et al. 2021, Barlow Twins", _LIGHT, (0.3,), _BY_EPOCH
    ),
    "dino": Preset(
        "DINO's",
        "Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers",
        _PLAIN,
        (1e-3,),
        _BY_EPOCH,
        batch=1024,
        scaled=True,
    ),
    "dinov2": Preset(
        "DINOv2's grid of 13 rates",
        "Oquab et al. 2024, DINOv2",
        _PLAIN,
        _DINOV2_RATES,
        Cosine(),
        epochs=10,
        batch=1024,
        scaled=True,
        steps=12_500,
        remainder="carried over",
    ),
    "ffcv-online": Preset(
        "FFCV-SSL's online probe",
        "Bordes, Balestriero and Vincent 2023, Towards Democratizing Joint-Embedding SSL",
        Optimiser("adamw", decay=0.01),
        (1e-4,),
        Constant(),
        remainder="left out",
    ),
    "mae": Preset(
        "MAE's, with LARS as its code has it",
        "He et al. 2022, Masked Autoencoders Are Scalable Vision Learners",
        Optimiser("lars"),
        (0.1,),
        Cosine(warmup=10),
        epochs=90,
        batch=16_384,
        scaled=True,
        features="standardised",
        remainder="left out",
    ),
    "moco": Preset(
        "MoCo's, whose rate of 30 makes the result depend on rounding",
        "He et al. 2020, Momentum Contrast for Unsupervised Visual Representation Learning",
        _PLAIN,
        (30.0,),
        Steps((60, 80)),
    ),
    "simclr": Preset(
        "SimCLR's as lightly runs it",
        "Chen et al. 2020, A Simple Framework for Contrastive Learning; lightly",
        _PLAIN,
        (0.1,),
        Cosine(),
        epochs=90,
        scaled=True,
        remainder="left out",
    ),
    "simsiam": Preset(
        "SimSiam's, with apex's LARC",
        "Chen and He 2021, Exploring Simple Siamese Representation Learning",
        Optimiser("larc"),
        (0.1,),
        _BY_EPOCH,
        epochs=90,
        batch=4096,
        scaled=True,
    ),
    "solo": Preset(
        "solo-learn's, of rates 0.1, 0.3 and 1",
        "da Costa et al. 2022, solo-learn",
        _PLAIN,
        (0.1, 0.3, 1.0),
        Steps((60, 80)),
        scaled=True,
        remainder="left out",
    ),
    "swav": Preset(
        "SwAV's",
        "Caron et al. 2020, Unsupervised Learning of Visual Features by Contrasting Cluster "
        "Assignments",
        _LIGHT,
        (0.3,),
        _BY_EPOCH,
    ),
    "umm": Preset(
        "UMM's, with Adam",
        "On the Generalization and Causal Explanation in Self-Supervised Learning (2410.00772)",
        Optimiser("adam", decay=1e-6),
        (1e-2,),
        Exponential((1e-6 / 1e-2) ** (1 / 500)),
        epochs=1000,
        batch=512,
        remainder="left out",
    ),
    "us3l-cifar": Preset(
        "US3L's on CIFAR, whose rate of 30 makes the result depend on rounding",
        "Cao et al. 2023, Three Guidelines You Should Know for Universally Slimmable SSL",
        _PLAIN,
        (30.0,),
        Steps((60, 80)),
        batch=512,
    ),
    "vicreg": Preset(
        "VICReg's", "Bardes, Ponce and LeCun 2022, VICReg", _LIGHT, (0.02,), _BY_EPOCH
    ),
    "vissl-clevr": _vissl("CLEVR's distances", 100, Cosine(last=0.01, by_epoch=True)),
    "vissl-in1k": _vissl("ImageNet", 28, Steps((8, 16, 24))),
    "vissl-inat18": _vissl("iNaturalist 2018", 84, Steps((24, 48, 72))),
    "vissl-places205": _vissl("Places205", 14, Steps((4, 8, 12))),
}
"""By the name behind ``sgd:``."""
