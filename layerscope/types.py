"""The words of LayerScope: frozen records and the protocols of what has behaviour.

Imports nothing of ours but the errors and, at run time, no torch; every other room speaks in these
terms.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    Protocol,
    Self,
    TypeVar,
    get_args,
    runtime_checkable,
)

from layerscope.errors import SettingsError, UnknownNameError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    Array = npt.NDArray[np.float32] | npt.NDArray[np.float64]

Part = Literal["trunk", "head"]
Split = Literal["train", "val", "test"]
Kind = Literal["classes", "multilabel", "latents", "none"]
"""Of targets: one class a row, any number of labels, continuous values, or nothing."""
Encoding = Literal["raw", "circular", "quaternion"]
Direction = Literal["maximise", "minimise"]
Pooling = Literal["mean", "cls", "cls+mean", "max", "flat:9k", "none"]
"""How a layer's output becomes one vector per image."""
Layout = Literal["vector", "map", "map-last", "tokens"]
"""Of an output: (b, c), (b, c, h, w), (b, h, w, c), or (b, n, d)."""
Branch = Literal["online", "momentum"]
"""Of two sets of weights that were trained together: the student's, or the teacher's."""
Activation = Literal["relu", "gelu", "quick_gelu", "silu", "hardswish", "tanh", "none"]
Stem = Literal["imagenet", "cifar", "stl10"]
"""Of a ResNet: stride 2 and max pooling, stride 1 and none, or stride 1 and max pooling."""
Framing = Literal["checkpoint", "whole", "crop"]
"""What a source lets happen to its images: the checkpoint's own resizing and cropping; resizing
alone, because a crop would cut off what is asked about; or the crop alone, without resampling."""
Statistics = Literal["batch", "recalibrate"]
"""What stands in for BatchNorm statistics that a file does not hold."""
Axes = Literal["nchw", "nhwc"]
"""Where the channels of a map are: before height and width, or behind."""
Storage = Literal["float16", "bfloat16", "float32"]
"""In which type features are stored."""
Existing = Literal["keep", "missing", "replace"]
"""What to do with work that is there: leave it, do what is missing, or do it anew."""
Precision = Literal["float32", "bfloat16"]
"""In which a network computes."""
BaselineKind = Literal["", "pixels", "random"]
"""What a checkpoint is there to be compared with: mean colours of the images, without a network;
another checkpoint's network with random weights; or empty, for a checkpoint of its own."""
Invariance = Literal["rotation", "translation", "scale", "row-scale", "copies"]
"""What a measure does not notice: an orthogonal map of the features; a common offset; a common
positive factor; a positive factor of each row's own; every image a second time as another one."""

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_EACH = re.compile(r"(\d+)/class")
_NARROWED = re.compile(r"(width|pca)=(\d+)")
_BASELINE = re.compile(r"(?:pixels|random-(?P<seed>\d+)):(?P<checkpoint>.+)")
_HUNDRED = 100.0

RANDOM_NETWORKS = 5
"""So many a checkpoint is compared with where no number is given: one draw is no band."""

Setting = str | int | float
"""Of a checkpoint in a series: what its training was given, or how far it had come."""

ScoreKind = Literal["probe", "measure"]
"""Of a score: of a probe, which was fitted and errs on rows, or of a measure of the features."""

REVISION = 2
"""Of the numbers that estimators give: it grows when the same features get other scores, so that
scores of older ones are computed again and never compared with newer ones."""

ReplicatesKind = Literal["refits", "draws", "folds", "choices"]
TrainingNoiseFrom = Literal["refits", "draws", "folds", "assumed"]
"""Where the noise of another training sample comes from: fits without some of the rows, several
draws of them, folds, or the formula of least squares."""

SPLITS: tuple[Split, ...] = ("train", "val", "test")
TRUNK = "trunk"
"""Name of the cut at the end of the trunk."""

METRICS: Mapping[Kind, Mapping[str, Direction]] = {
    "classes": {
        "top-1": "maximise",
        "top-5": "maximise",
        "mean-per-class": "maximise",
        "auroc": "maximise",
        "nll": "minimise",
        "ece": "minimise",
        "mce": "minimise",  # over all shifts of a set: what ``layerscope evaluate`` gives
    },
    "multilabel": {
        "mean-average-precision": "maximise",
        "auroc": "maximise",
        "mse": "minimise",
        "nmse": "minimise",
    },
    "latents": {
        "mse": "minimise",
        "nmse": "minimise",
        "mae": "minimise",
        "circular-error": "minimise",
        "geodesic": "minimise",
        "r2": "maximise",
    },
    "none": {"": "maximise"},
}
"""By kind of targets: the metrics that estimators know, and which way each of them is better."""
SPELLINGS = {"balanced-accuracy": "mean-per-class"}
"""Other names under which metrics are known."""
UNITS: Mapping[str, Encoding] = {
    "mae": "raw",
    "circular-error": "circular",
    "geodesic": "quaternion",
}
"""The one encoding of latents for which a metric in their own unit is given."""
FEW = 5
"""The most likely classes among which the true one counts as found by top-5."""


@dataclass(frozen=True, slots=True)
class CutPoint:
    """A place where the network can be cut: one call of one module, in call order."""

    index: int
    """Position among the network's cut points, in call order from 0."""
    name: str
    """The field's name for it: ``stem``, ``layer1.0``, ``trunk``, ``head.1``."""
    module: str
    """Dotted module name; ``#2`` marks the second call of a module that is reused."""
    part: Part
    """``trunk`` or ``head``."""
    width: int
    """Number of pooled features."""
    pooling: Pooling
    """How the module's output becomes one vector per image."""
    depth: float
    """Position in [0, 1]: 0 for the first cut point, 1 for the last."""
    layout: Layout = "vector"
    """What the axes of the module's output are."""
    prefix_tokens: int = 0
    """Of tokens: how many leading ones (class token, registers) are no patches."""
    class_token: bool = True
    """Of tokens with leading ones: whether the first of them is a class token."""

    @property
    def key(self) -> str:
        """The cut in one of its poolings: ``blocks.3@cls``."""
        return f"{self.name}@{self.pooling}"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to an image before the network sees it."""

    resize: int | tuple[int, int] | None
    """Shorter side in pixels, (height, width), or None to leave the image as it is."""
    crop: int | None
    """Side of the centre crop in pixels, or None."""
    mean: tuple[float, float, float]
    """Per channel, subtracted from values in [0, 1]."""
    std: tuple[float, float, float]
    """Per channel, divided by."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Resampling filter, antialiased."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A card: what a set of weights is, where it came from and how to feed it."""

    name: str
    family: str
    architecture: Mapping[str, Any]
    weights: Path | None
    """The weights' file, or None for a network with random weights."""
    sha256: str
    """Of the weights' bytes; for random weights, of the tensors that the seed produced."""
    preprocessing: Preprocessing
    head: str
    """One phrase about the head, such as ``3-layer MLP, 256-256-256``."""
    licence: str
    citation: str
    seed: int | None = None
    """Seed of random weights, None for trained ones."""
    description: str = ""
    declared: Mapping[str, Any] = field(default_factory=dict)
    """What the user declared because the weights do not tell it."""
    baseline: BaselineKind = ""
    """What it is a baseline by; empty for a checkpoint of its own."""
    baseline_of: str = ""
    """Name of the checkpoint that it is a baseline of; empty for a checkpoint of its own."""

    @property
    def trained(self) -> bool:
        """Whether there are weights that come from a training, and not from a seed."""
        return self.seed is None and not self.baseline


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline of a checkpoint: what its features have to beat to be worth anything."""

    kind: BaselineKind
    seed: int = 0
    """Of random weights."""

    @classmethod
    def parse(cls, words: str) -> tuple[Baseline, ...]:
        """Return the baselines that a user named: ``pixels``, ``random`` or ``random=8``.

        Raises:
            SettingsError: A word is none of these, or asks for no network.

        Examples:
            >>> [it.name for it in Baseline.parse("pixels,random=2")]
            ['pixels', 'random-0', 'random-1']
        """
        found: dict[BaselineKind, tuple[Baseline, ...]] = {}
        for word in map(str.strip, words.split(",")):
            some = cls._parse_kind(word)
            if found.setdefault(some[0].kind, some) is not some:
                raise SettingsError(
                    f"The baselines {words!r} name {some[0].kind} twice.",
                    hint="Leave one of them out.",
                )
        return tuple(it for some in found.values() for it in some)

    @classmethod
    def _parse_kind(cls, word: str) -> tuple[Baseline, ...]:
        kind, given, count = word.partition("=")
        if kind not in ("pixels", "random"):
            raise UnknownNameError("baseline", word, ("pixels", "random", "random=8"))
        if kind == "pixels" and not given:
            return (cls("pixels"),)
        if kind == "random" and (not given or (count.isdecimal() and int(count))):
            return tuple(cls("random", n) for n in range(int(count or RANDOM_NETWORKS)))
        raise SettingsError(
            f"The baseline {word!r} does not say how many there are to be.",
            hint="Write random=8, random alone for five networks, or pixels, of which there is "
            "one.",
        )

    @classmethod
    def split(cls, word: str) -> tuple[Baseline | None, str]:
        """Return the baseline that a checkpoint's word names, if it does, and whose it is.

        Examples:
            >>> Baseline.split("random-3:nets/a.pth")
            (Baseline(kind='random', seed=3), 'nets/a.pth')
            >>> Baseline.split("nets/a.pth")
            (None, 'nets/a.pth')
        """
        found = _BASELINE.fullmatch(word)
        if not found:
            return None, word
        kind: BaselineKind = "pixels" if found["seed"] is None else "random"
        return cls(kind, int(found["seed"] or 0)), found["checkpoint"]

    @property
    def name(self) -> str:
        """``pixels``, or with its seed ``random-3``."""
        return f"{self.kind}-{self.seed}" if self.kind == "random" else self.kind

    def of(self, checkpoint: str) -> str:
        """Return the word by which a command names this baseline of a checkpoint."""
        return f"{self.name}:{checkpoint}"


@runtime_checkable
class CutModel(Protocol):
    """A network with its ordered cut points and its card."""

    @property
    def checkpoint(self) -> Checkpoint: ...
    @property
    def module(self) -> torch.nn.Module: ...
    @property
    def cuts(self) -> tuple[CutPoint, ...]: ...


@dataclass(frozen=True, slots=True)
class Task:
    """One question asked of the features: targets, how they are encoded, how answers are scored."""

    name: str
    """Unique, prefixed by its source: ``objects3d-rotation``; ``objects3d`` names them all."""
    source: str
    kind: Kind
    metric: str
    """The primary metric, by which the cut is chosen."""
    direction: Direction
    title: str = ""
    """For figures: ``Spot θ``."""
    encoding: Encoding | None = None
    """How latent targets become regression targets; None for classes."""
    period: float | None = None
    """Length of a full turn of a circular latent, in the target's own unit."""
    unit: str = ""
    classes: tuple[str, ...] = ()
    """Their names by label, or the names of the labels; empty before a folder is opened."""
    class_count: int = 0
    """How many there are, where that is known before a folder is opened."""
    split: str = ""
    """Where train, val and test come from, in one sentence."""
    licence: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        if self.kind not in METRICS:
            raise UnknownNameError("kind of targets", self.kind, METRICS)
        metrics = METRICS[self.kind]
        if self.metric not in metrics:
            raise SettingsError(
                f"The task {self.name!r} of {self.kind} has the metric {self.metric!r}, by which "
                "no cut of it can be chosen.",
                hint=f"Choose one of {', '.join(filter(None, metrics)) or 'none, an empty text'}.",
            )
        if self.direction != metrics[self.metric]:
            raise SettingsError(
                f"The task {self.name!r} says {self.direction!r} of the metric {self.metric!r}.",
                hint=f"Write {metrics[self.metric]!r}: a cut would else be chosen for being bad.",
            )
        self._require_fitting_encoding()
        self._require_metric_to_be_given()

    def judged_by(self, metric: str) -> Task:
        """Return the task with another primary metric.

        Args:
            metric: One of its kind's, or another name of one.

        Raises:
            SettingsError: The metric says nothing of such a task.

        Examples:
            >>> Task("kind", "toy", "classes", "top-1", "maximise").judged_by("auroc").metric
            'auroc'
        """
        name = SPELLINGS.get(metric, metric)
        direction = METRICS[self.kind].get(name, self.direction)
        return replace(self, metric=name, direction=direction)

    def _require_metric_to_be_given(self) -> None:
        few = 0 < (len(self.classes) or self.class_count) <= FEW
        encoding = UNITS.get(self.metric, self.encoding)
        if (few and self.metric == "top-5") or encoding != self.encoding:
            what = f"of {FEW} classes at most" if few else f"with the encoding {self.encoding!r}"
            raise SettingsError(
                f"The task {self.name!r} {what} has the metric {self.metric!r}, which says nothing "
                "there.",
                hint="Choose top-1." if few else "Choose mse, or the error in the latent's unit.",
            )

    def _require_fitting_encoding(self) -> None:
        known = get_args(Encoding)
        if self.kind == "latents" and self.encoding not in known:
            raise SettingsError(
                f"The task {self.name!r} of latents has the encoding {self.encoding!r}.",
                hint=f"Say how they become regression targets: {', '.join(known)}.",
            )
        if self.kind != "latents" and self.encoding is not None:
            raise SettingsError(
                f"The task {self.name!r} of {self.kind} has the encoding {self.encoding!r}.",
                hint="Leave it out: only latents are encoded.",
            )


UNLABELLED = Task("none", "", "none", "", "maximise", title="Without labels")
"""Stands for no task in the scores of measures that use no labels."""


@dataclass(frozen=True, slots=True)
class Definition:
    """Which number a measure's name stands for: published ones differ under the same name."""

    metric: str
    """The headline among the metrics that it gives."""
    direction: Direction
    """Which way the paper expects better representations to lie."""
    convention: str
    """A short name for what was chosen where public code differs: ``singular-uncentred``."""
    invariances: frozenset[Invariance]
    """All that leave it as it is; the others change it."""
    citation: str
    """Paper and equation."""


@runtime_checkable
class Images(Protocol):
    """Where the images of a source are read from, by row."""

    def read(self, row: int) -> bytes | npt.NDArray[np.uint8]:
        """Return an image file's bytes, or (h, w, 3) pixels that need no decoding."""

    def place(self, row: int) -> str:
        """Return where a person finds the image: its path, or its file and its name in there."""

    def select(self, rows: npt.NDArray[np.int64]) -> Images:
        """Return some of the rows, in the order given."""


@dataclass(frozen=True, slots=True)
class Source:
    """Images and ids in a fixed order, with their splits, groups and targets by task.

    The images themselves are read through :class:`Images`; everything else is stored beside the
    features, so that a cache is self-contained.
    """

    name: str
    ids: tuple[str, ...]
    """One stable name per row, such as a relative path."""
    splits: npt.NDArray[np.str_]
    """(n,) ``train``, ``val`` or ``test``."""
    groups: npt.NDArray[np.str_]
    """(n,) what a row shares with others that are not independent of it: its object."""
    tasks: tuple[Task, ...]
    targets: Mapping[str, npt.NDArray[Any]]
    """By task name: (n,) int64 classes, (n, k) int64 labels of 0 and 1, or (n, k) float64 latents
    in their own units. Rows that the task's split leaves out hold anything."""
    manifest: str
    """sha256 over what the features depend on: ids and file sizes."""
    annotations: str
    """sha256 over the rest: splits, groups and targets."""
    root: Path
    images: Images | None = None
    """What reads them; None where they are files at ``root / id``."""
    framing: Framing = "checkpoint"
    task_splits: Mapping[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    """By name, of tasks that divide the rows otherwise: (n,) places in ``SPLITS``, or -1 for a row
    that the task leaves out."""
    missing: Mapping[int, str] = field(default_factory=dict)
    """Of rows whose image is known to be absent before it is read: what is wrong with it."""
    notes: tuple[str, ...] = ()
    """What whoever uses the source should know: seeds, counts that differ from the published."""
    views_of: str = ""
    """Name of the source of whose images the rows are augmented views; empty where they are the
    images themselves."""


@dataclass(frozen=True, slots=True)
class Replicates:
    """Losses of the same test rows under other probes of the same layer: the noise of training."""

    kind: ReplicatesKind
    """Fits without each of some blocks of training rows; what was reported as one mean; or the fits
    that other validation rows would have chosen."""
    losses: npt.NDArray[np.floating[Any]]
    """(m, n_test) for m probes."""
    factor: float
    """What the sum of their means' squared offsets is multiplied with to be a variance."""
    degrees: float
    """Degrees of freedom of that variance."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss of every row under the primary metric: what layers are compared on."""

    val: npt.NDArray[np.float64]
    """(n_val,) lower is better: squared error, or 0 for right and 1 for wrong."""
    test: npt.NDArray[np.float64]
    """(n_test,)"""
    predicted: npt.NDArray[Any] | None = field(default=None, compare=False)
    """(n_test,) classes or (n_test, k) encoded latents, where the estimator gives them."""
    replicates: tuple[Replicates, ...] = field(default=(), compare=False)
    """How much other training and validation rows move them; none where it was not measured."""
    train_groups: int = 0
    """Independent groups among the training rows; 0 where it is not known."""
    train_share: float = 1.0
    """Of the training rows, the share that a draw took."""


@dataclass(frozen=True, slots=True)
class Constant:
    """What one answer for all rows, made from the training targets alone, is worth on a task."""

    values: Mapping[str, float] = field(default_factory=dict)
    """By metric: on the test rows."""
    losses: Losses | None = None
    """Of every row under the primary metric; None where that metric has no constant."""
    note: str = ""
    """Why there are no losses."""


@dataclass(frozen=True, slots=True, order=True)
class Draw:
    """How many training rows are drawn: all, a share of each class, or a number of each."""

    share: float = 1.0
    each: int = 0
    """Rows of every class; 0 where a share is drawn."""

    @classmethod
    def parse(cls, words: str) -> Draw:
        """Return the draw that a user named: ``all``, ``10%`` or ``5/class``.

        Raises:
            SettingsError: It is none of these.

        Examples:
            >>> Draw.parse("2.5%").share, Draw.parse("5/class").each
            (0.025, 5)
        """
        share, each = _SHARE.fullmatch(words), _EACH.fullmatch(words)
        if words == "all":
            return cls()
        if share and 0 < float(share[1]) <= _HUNDRED:
            return cls(share=float(share[1]) / _HUNDRED)
        if each and int(each[1]):
            return cls(each=int(each[1]))
        raise SettingsError(
            f"{words!r} does not say which training rows to take.",
            hint="Give all, a share such as 10%, or a number of every class such as 5/class.",
        )

    @property
    def whole(self) -> bool:
        """Whether every training row is taken."""
        return self.share == 1 and not self.each

    def __str__(self) -> str:
        if self.each:
            return f"{self.each}/class"
        return "all" if self.whole else f"{_HUNDRED * self.share:.12g}%"


@dataclass(frozen=True, slots=True, order=True)
class Control:
    """What rules out one cause of a difference between layers; of the kind ``none``, nothing."""

    kind: Literal["none", "width", "pca", "shuffled"] = "none"
    width: int = 0
    """Features that every layer is given."""

    @classmethod
    def parse(cls, words: str) -> Control:
        """Return the control that a user named: ``width=64``, ``pca=64``, ``shuffled``, or nothing.

        Raises:
            SettingsError: It is none of these.
        """
        found = _NARROWED.fullmatch(words)
        if not words:
            return cls()
        if words == "shuffled":
            return cls("shuffled")
        if found and int(found[2]):
            return cls("pca" if found[1] == "pca" else "width", int(found[2]))
        raise SettingsError(
            f"There is no control {words!r}.",
            hint="Give width=64, pca=64 (or another number of features), or shuffled.",
        )

    def __bool__(self) -> bool:
        return self.kind != "none"

    @property
    def equal_width(self) -> bool:
        """Whether every layer has the same number of features."""
        return self.kind in ("width", "pca")

    def __str__(self) -> str:
        if self.equal_width:
            return f"{self.kind}={self.width}"
        return self.kind if self else ""


EVERY_ROW, NO_CONTROL = Draw(), Control()


def _columns(arranged: Any) -> tuple[str, ...]:
    names = [it.name for it in fields(arranged) if it.name not in ("folds", "losses")]
    return tuple("train" if name == "draw" else name for name in names)


class Arranged:
    """What a score and a verdict have in common: which rows trained, and how layers were seen."""

    __slots__ = ()
    draw: Draw
    folds: int
    control: Control

    @property
    def train(self) -> str:
        """Which rows trained, in words: ``all``, ``10%``, ``5/class``, or ``5 folds``."""
        return f"{self.folds} folds" if self.folds > 1 else str(self.draw)

    @property
    def usual(self) -> bool:
        """Whether all rows trained, on the layer as it is."""
        return not self.control and self.draw.whole

    def row(self: Any) -> dict[str, Any]:
        """Return the fields as plain values: ``train`` for draw and folds, and no losses."""
        known = {name: getattr(self, name) for name in _columns(self)}
        known["control"] = str(self.control)
        return {
            name: asdict(value) if isinstance(value, Interval) else value
            for name, value in known.items()
        }


@dataclass(frozen=True, slots=True)
class Score(Arranged):
    """One cell of the long table: a checkpoint, cut, pooling, task, estimator and metric."""

    checkpoint: str
    source: str
    cut: str
    index: int
    part: Part
    width: int
    depth: float
    pooling: str
    task: str
    estimator: str
    metric: str
    direction: Direction
    primary: bool
    val: float
    test: float
    stderr: float
    """Standard error of ``test``, whole groups being independent."""
    n_train: int
    n_val: int
    n_test: int
    n_groups: int
    """Independent groups among the test rows."""
    seed: int
    """Of what chance decides: the draw of training rows, a projection, an estimator's start."""
    settings: Mapping[str, Any]
    """What was chosen and how: λ, whether the grid's edge won, the encoding."""
    fingerprint: str
    """Of the cache that the features came from."""
    status: Literal["done", "failed"] = "done"
    note: str = ""
    draw: Draw = EVERY_ROW
    """Which training rows."""
    folds: int = 1
    """More than 1: of training and validation rows together, which are divided so often."""
    control: Control = NO_CONTROL
    """Against which confound."""
    kind: ScoreKind = "probe"
    trained: bool = True
    """Whether the checkpoint's weights come from a training, and not from a seed."""
    views_of: str = ""
    """Name of the source of whose images the rows are augmented views; empty for the images."""
    baseline: BaselineKind = ""
    """What the checkpoint is a baseline by; empty for a checkpoint of its own."""
    baseline_of: str = ""
    """Name of the checkpoint that it is a baseline of: those of one kind are a group."""
    content: str = ""
    """Digest of the cut's features, of all rows that the estimator sees: cuts of one cache with the
    same content are one cut with several names. Empty where it is not known: in older results, and
    of cuts that memory does not hold."""
    revision: int = REVISION
    """Of the estimators by whose code it was computed."""
    losses: Losses | None = field(default=None, compare=False, repr=False)
    """Kept beside the table, not in it; only with the primary metric."""

    @property
    def labelled(self) -> bool:
        """Whether the score is for a task's labels."""
        return self.task != UNLABELLED.name

    @classmethod
    def at(cls, view: LayerView, task: Task, **others: Any) -> Score:
        """Return a score of a task at a cut, whose names and place are those of the view.

        Args:
            view: The cut.
            task: What was asked there.
            **others: The columns that neither knows.
        """
        cut = view.cut
        return cls(
            checkpoint=view.checkpoint,
            source=view.source,
            fingerprint=view.fingerprint,
            cut=cut.name,
            index=cut.index,
            part=cut.part,
            width=cut.width,
            depth=cut.depth,
            pooling=cut.pooling,
            task=task.name,
            **others,
        )


COLUMNS = _columns(Score)
"""Of the table of scores, in order."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    low: float
    high: float


def label(cut: str, equal_cuts: Mapping[str, Sequence[str]]) -> str:
    """Return a cut's name with its other names, if it has any.

    Examples:
        >>> label("trunk", {"trunk": ("layer4.1",)}), label("stem", {"trunk": ("layer4.1",)})
        ('trunk (= layer4.1)', 'stem')
    """
    others = equal_cuts.get(cut, ())
    return f"{cut} (= {', '.join(others)})" if others else cut


@dataclass(frozen=True, slots=True)
class Verdict(Arranged):
    """Where to cut for one task, and how sure one can be."""

    checkpoint: str
    task: str
    estimator: str
    metric: str
    direction: Direction
    best: str
    """The cut chosen on the validation split."""
    value: Interval
    """The best cut's metric on the test split."""
    tied: tuple[str, ...]
    """Cuts that the test split cannot tell from the best, in depth order; includes ``best``."""
    shallowest: str
    """The first of the tied cuts."""
    trunk: str
    """The usual cut: the end of the trunk."""
    gain: Interval
    """Improvement of ``best`` over ``trunk`` (positive is better), paired over the same images."""
    gain_over_last: Interval
    """Improvement of ``best`` over the last layer of the network."""
    resamples_won: Mapping[str, float]
    """By cut, in depth order: share of the bootstrap resamples of the test split in which its loss
    is the lowest. It is no probability that the cut is the best."""
    level: float
    n_test: int
    n_groups: int
    agrees: bool
    """False when the test split rejects the cut that validation chose."""
    note: str = ""
    pooling: str = ""
    """Of the best cut: the one that validation prefers where there are several."""
    tied_holm: tuple[str, ...] = ()
    """Cuts that pairwise tests against ``best`` do not show to be worse, Holm-corrected."""
    mcnemar: float | None = None
    """McNemar's two-sided p-value of ``best`` against ``trunk``; None where they are the same, rows
    share groups, or losses are not of right and wrong."""
    draw: Draw = EVERY_ROW
    """Which training rows."""
    folds: int = 1
    """More than 1: of training and validation rows together, which are divided so often."""
    control: Control = NO_CONTROL
    """Against which confound."""
    trained: bool = True
    """Whether the checkpoint's weights come from a training, and not from a seed."""
    training_noise: TrainingNoiseFrom = "assumed"
    """Where the noise of another training sample comes from."""
    reads: bool | None = None
    """Whether the best cut is shown to read the task better than a constant answer does; None where
    no constant was kept, as in older results."""
    constant: float | None = None
    """The metric of a constant answer on the test rows."""
    over_constant: Interval | None = None
    """Improvement of ``best`` over the constant answer (positive is better), paired over the same
    images."""
    equal_cuts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By cut: the other names of it, which are cuts whose features are the same numbers."""

    def label(self, cut: str) -> str:
        """Return a cut's name with its other names: ``trunk (= layer4.1)``."""
        return label(cut, self.equal_cuts)

    @property
    def unread(self) -> bool:
        """Whether no cut is shown to read the task better than a constant answer does."""
        return self.reads is False

    @property
    def way(self) -> str:
        """How the layers were probed, where it is not the usual way: ``10%, width=64``."""
        train = "" if self.train == "all" else self.train
        return ", ".join(filter(None, (train, str(self.control))))


@runtime_checkable
class LayerView(Protocol):
    """One cut of a cache with its three splits and targets: all that an estimator may see."""

    @property
    def checkpoint(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def cut(self) -> CutPoint: ...
    @property
    def fingerprint(self) -> str: ...
    def features(self, split: Split) -> npt.NDArray[np.float32]:
        """(n, width) rows of one split, in source order.

        Others read the same array: copy it before you write into it.
        """

    def target(self, task: str, split: Split) -> npt.NDArray[Any]:
        """(n,) classes or (n, k) latents of one split."""

    def groups(self, split: Split) -> npt.NDArray[np.str_]:
        """(n,) group of each row of one split."""

    def views(self, split: Split) -> npt.NDArray[np.int64]:
        """(n,) number of the augmented view that each row is, from 0; 0 for images as they are."""

    def instances(self, split: Split) -> npt.NDArray[np.int64]:
        """(n,) number of the image of which each row is a view; other images have other numbers."""


@runtime_checkable
class FeatureCache(Protocol):
    """Pooled features of every cut of one checkpoint over one source."""

    @property
    def checkpoint(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def cuts(self) -> tuple[CutPoint, ...]: ...
    @property
    def tasks(self) -> tuple[Task, ...]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def complete(self) -> bool: ...
    @property
    def own_splits(self) -> Collection[str]:
        """Names of the tasks that divide the rows otherwise than the source."""

    @property
    def settings(self) -> Mapping[str, Setting]:
        """What distinguishes the checkpoint in a series or a grid: ``{"epoch": 12, "lr": 0.3}``."""

    @property
    def views(self) -> int:
        """Augmented views of each image; 1 where there are only images as they are."""

    @property
    def views_of(self) -> str:
        """Name of the source of whose images the rows are augmented views; empty for the images."""

    @property
    def trained(self) -> bool:
        """Whether the checkpoint's weights come from a training, and not from a seed."""

    @property
    def baseline(self) -> BaselineKind:
        """What the checkpoint is a baseline by; empty for a checkpoint of its own."""

    @property
    def baseline_of(self) -> str:
        """Name of the checkpoint that it is a baseline of; empty for a checkpoint of its own."""

    def view(self, cut: str, pooling: str | None = None, task: str | None = None) -> LayerView:
        """Return one cut in one pooling, which may be left out where there is only one.

        The splits are those of the task, where it has its own, and the source's otherwise.
        """


class Estimator(ABC):
    """Gives every cut a number for a task. Estimators derive from this class."""

    name: str
    """The one in the table of scores."""
    refits: ClassVar[Literal["own", "again", "none"]] = "again"
    """How the noise of training is measured: its losses bring refits of their own; it is scored
    again without each of a few blocks of training rows, which costs as often as much; or not."""

    @abstractmethod
    def handles(self, task: Task) -> bool:
        """Return whether the task's targets are of a kind that this estimator can score."""

    @abstractmethod
    def score(self, view: LayerView, tasks: Sequence[Task]) -> Iterator[Score]:
        """Yield the scores of several tasks at once, because they share the features."""

    def with_seed(self, seed: int) -> Self:
        """Return the estimator with another seed, or itself where chance has no part in it."""
        del seed
        return self

    def among(self, cuts: Sequence[CutPoint]) -> Self:
        """Return the estimator ready for these cuts, where its numbers depend on all of them."""
        del cuts
        return self


class Measure(Estimator):
    """An estimator that fits nothing: a number of the validation rows, and of the test rows.

    Its scores hold ``convention`` in their settings, and no losses.
    """

    refits = "none"

    @abstractmethod
    def definition(self, task: Task) -> Definition:
        """Return what its headline for a task is; :data:`UNLABELLED` where it uses no labels."""


Statistic = TypeVar("Statistic", covariant=True)


class Running(Protocol[Statistic]):
    """Sufficient statistics: updated by batches, merged across parts, turned into a result."""

    def update(self, rows: torch.Tensor) -> None: ...
    def merge(self, other: Any) -> None: ...
    def compute(self) -> Statistic: ...
