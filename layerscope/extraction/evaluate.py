"""The verb *evaluate*: probes of a clean cache on shifted images, whose features are not stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from layerscope.cache import Cache
from layerscope.data import Loader, frame_preprocessing, thin_source
from layerscope.data.shifts import Condition, Shift
from layerscope.errors import CheckpointError, SettingsError, SourceError
from layerscope.estimators.linear import LinearProbe, probe_from
from layerscope.estimators.logistic import fit_probe
from layerscope.extraction.capture import capturing, drift, require_finite
from layerscope.extraction.settings import EvaluateSettings
from layerscope.results.durable_files import replace_file
from layerscope.results.evaluations import (
    FOLDER,
    CutSummary,
    Evaluation,
    Evaluations,
    ShiftSummary,
    summary,
)
from layerscope.runtime.device import choose_device
from layerscope.runtime.timers import StageTimer
from layerscope.types import CutModel, Source, Split, Task

Probes = Mapping[str, LinearProbe]
"""By cut and pooling, ``blocks.3@cls``."""


@dataclass(frozen=True, slots=True)
class EvaluateReport:
    """What an evaluation found."""

    shift: str
    task: str
    checkpoint: str
    cuts: tuple[CutSummary, ...]
    """In call order, a cut once for each of its poolings."""
    chosen: str
    """The cut (and pooling) that clean validation prefers; no shifted image had a say in it."""
    evaluations: tuple[Evaluation, ...]
    computed: int
    """Conditions that were streamed now; the others were there already."""
    waiting: float
    """Share of the time in which the network waited for images."""


def evaluate(
    model: CutModel,
    cache: Cache,
    shift: Shift,
    out: Path,
    settings: EvaluateSettings | None = None,
    *,
    progress: Callable[..., None] = lambda done, note="": None,
    **changes: Any,
) -> EvaluateReport:
    """Evaluate the logistic probes of a clean cache under every condition of a shift.

    Probes are fitted once and kept in the results folder. A condition that is there is not streamed
    again, so that an interrupted evaluation goes on where it stopped.

    Args:
        model: The network that the cache was made from.
        cache: Of clean images, with the task's targets; its cuts are evaluated.
        shift: From :func:`layerscope.data.shifts.open_shift`.
        out: The results folder.
        settings: How probes are evaluated; the defaults where there are none.
        progress: Called with 1 and the condition's name after each condition.
        **changes: Fields of :class:`EvaluateSettings` that differ from ``settings``.

    Raises:
        CheckpointError: The network is not the one of the cache, or it changes while it is read.
        SettingsError: The cache does not tell which task is meant.
        SourceError: An image cannot be read, or a class is none that the probes know.
        EstimatorError: No probe can be fitted on a cut.
    """
    settings = replace(settings or EvaluateSettings(), **changes)
    _require_same_network(model, cache)
    asked = _task(cache, shift, settings.task)
    folder = out / FOLDER / f"{cache.checkpoint}@{cache.source}"
    device = choose_device(settings.device)
    probes = _probes(cache, asked, folder)
    stream = _ConditionStream(model, cache, asked, probes, settings, device)
    table = Evaluations(folder)
    there = table.rows()
    found, computed = list[Evaluation](), 0
    for condition in shift.conditions:
        images = stream.loader(condition.open())
        known = stream.known(there, shift, condition, images)
        if not known:
            known = stream.run(shift, condition, images)
            table.append(known)
            computed += 1
        found += known
        progress(1, note=" ".join(filter(None, (condition.name, stream.watch.note()))))
    kept = ShiftSummary(
        checkpoint=cache.checkpoint,
        source=cache.source,
        task=asked.name,
        shift=shift.name,
        conditions=len(shift.conditions),
        chosen=stream.chosen(),
        cuts=tuple(stream.summaries(found, shift)),
        parts=tuple(cut.part for cut in cache.cuts),
    )
    table.keep_summary(kept)
    return EvaluateReport(
        shift=shift.name,
        task=asked.name,
        checkpoint=cache.checkpoint,
        cuts=kept.cuts,
        chosen=kept.chosen,
        evaluations=tuple(found),
        computed=computed,
        waiting=stream.watch.share,
    )


@dataclass(frozen=True, slots=True)
class _ConditionStream:
    """The network and the probes of all its cuts, judging one condition after the other."""

    model: CutModel
    cache: Cache
    task: Task
    probes: Probes
    settings: EvaluateSettings
    device: torch.device
    watch: StageTimer = field(default_factory=StageTimer)

    def loader(self, source: Source) -> Loader:
        """Return the loader of a condition's images."""
        limit = self.settings.limit
        images = source if limit is None else thin_source(source, limit)
        preprocessing = frame_preprocessing(self.model.checkpoint.preprocessing, source.framing)
        return self.settings.open_loader(images, preprocessing, self.device)

    def known(
        self, there: list[Evaluation], shift: Shift, condition: Condition, images: Loader
    ) -> list[Evaluation]:
        """Return the evaluations of a condition that are there already, or none of them."""
        wanted = (self.cache.fingerprint, self.task.name, shift.name, condition.name)
        key = self._key(images)
        same = {
            f"{it.cut}@{it.pooling}": it
            for it in there
            if (it.probes, it.task, it.shift, it.condition) == wanted and it.images == key
        }
        return list(same.values()) if set(same) == set(self.probes) else []

    def run(self, shift: Shift, condition: Condition, images: Loader) -> list[Evaluation]:
        """Stream the images of a condition, and return what each cut's probe makes of them."""
        source = images.request.source
        labels = _relabelled(source, self.task)
        right = dict.fromkeys(self.probes, 0)
        cuts, precision = self.cache.cuts, self.settings.precision
        with capturing(self.model, cuts, images, self.device, precision) as capture:
            with closing(iter(images)) as batches:
                for rows, batch in self.watch.waiting_for(batches):
                    valid = ~np.isin(rows, [bad.row for bad in images.bad])
                    features = capture.features(batch, valid)
                    require_finite(features, valid, [source.ids[row] for row in rows])
                    for key, probe in self.probes.items():
                        predicted = probe.predict(torch.from_numpy(features[key][valid]))
                        right[key] += int((predicted == labels[rows][valid]).sum())
            if capture.changed():
                raise drift(self.model, "Nothing was kept")
        self.watch.stop()
        n = len(source.ids) - len(images.bad)
        if not n:
            raise SourceError(
                f"No image of {condition.name} can be read.", hint="Look at the files, and again."
            )
        return [
            Evaluation(
                checkpoint=self.cache.checkpoint,
                cut=cut.name,
                pooling=cut.pooling,
                task=self.task.name,
                shift=shift.name,
                condition=condition.name,
                family=condition.family,
                severity=condition.severity,
                top_1=right[cut.key] / n,
                n=n,
                bad=len(images.bad),
                probes=self.cache.fingerprint,
                images=self._key(images),
            )
            for cut in cuts
        ]

    def summaries(self, found: list[Evaluation], shift: Shift) -> list[CutSummary]:
        """Return what every cut is worth under the shift."""
        severities = {condition.severity for condition in shift.conditions}
        return [
            summary(
                [it for it in found if (it.cut, it.pooling) == (cut.name, cut.pooling)],
                self._clean(cut.key, "test"),
                shift.baseline,
                severities,
            )
            for cut in self.cache.cuts
        ]

    def chosen(self) -> str:
        """Return the cut whose probe does best on the clean validation split."""
        return max(self.probes, key=lambda key: self._clean(key, "val"))

    def _clean(self, key: str, split: Split) -> float:
        name, _, pooling = key.rpartition("@")
        view = self.cache.view(name, pooling, self.task.name)
        predicted = self.probes[key].predict(torch.from_numpy(view.features(split)))
        return float((predicted == view.target(self.task.name, split)).mean())

    def _key(self, images: Loader) -> str:
        source = images.request.source
        parts = (source.manifest, len(source.ids), images.decoder, self.settings.precision)
        return "; ".join(map(str, parts))


def _require_same_network(model: CutModel, cache: Cache) -> None:
    mine, its = model.checkpoint, cache.card
    pairs: dict[str, tuple[Any, Any]] = {
        "weights": (mine.sha256, its.sha256),
        "declarations": (dict(mine.declared), dict(its.declared)),
        "preprocessing": (mine.preprocessing, its.preprocessing),
    }
    other = [what for what, (one, another) in pairs.items() if one != another]
    if other:
        raise CheckpointError(
            f"{str(cache.path)!r} was made from other {' and '.join(other)} than {mine.name!r}.",
            hint="Name the checkpoint, with the options, that the cache was extracted with.",
        )


def _task(cache: Cache, shift: Shift, name: str | None) -> Task:
    of_classes = {task.name: task for task in cache.tasks if task.kind == "classes"}
    wanted = name or shift.task or (next(iter(of_classes)) if len(of_classes) == 1 else "")
    if wanted not in of_classes:
        reason = f"has no classes of {wanted!r}" if wanted else "does not tell which task is meant"
        raise SettingsError(
            f"{str(cache.path)!r} {reason}; it has {', '.join(of_classes) or 'none'}.",
            hint="Name a task with --task, or give the cache of the clean images.",
        )
    return of_classes[wanted]


def _probes(cache: Cache, task: Task, folder: Path) -> Probes:
    """Return the probe of every cut, fitting those that are not there."""
    found = {}
    for cut in cache.cuts:
        path = folder / "probes" / f"{cut.key}.{task.name}.npz"
        probe = _read_probe(path, cache.fingerprint)
        if probe is None:
            probe = fit_probe(cache.view(cut.name, cut.pooling, task.name), task)
            arrays = {**probe.arrays(), "fingerprint": np.array(cache.fingerprint)}
            replace_file(path, partial(np.savez_compressed, **arrays))  # type: ignore[arg-type]
        found[cut.key] = probe
    return found


def _read_probe(path: Path, fingerprint: str) -> LinearProbe | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["fingerprint"]) != fingerprint:
            return None
        return probe_from({name: stored[name] for name in stored.files if name != "fingerprint"})


def _relabelled(source: Source, task: Task) -> npt.NDArray[np.int64]:
    """Return the (n,) classes of the images as the probes number them, matched by name."""
    own = next((it for it in source.tasks if it.kind == "classes"), None)
    if own is None:
        raise SourceError(
            f"The source {source.name!r} has no task of classes to evaluate.",
            hint="Give images that lie in folders by class.",
        )
    places = {name: place for place, name in enumerate(task.classes)}
    strange = [name for name in own.classes if name not in places]
    if strange:
        raise SourceError(
            f"{str(source.root)!r} has the class {strange[0]!r}, which {task.name} does not know.",
            hint=f"The probes were fitted on classes such as {', '.join(task.classes[:3])}.",
        )
    table = np.array([places[name] for name in own.classes], np.int64)
    return np.asarray(table[source.targets[own.name]])
