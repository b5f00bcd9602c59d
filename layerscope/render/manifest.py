"""The record ``dataset.json``: what was asked for, what made it, and whether it is complete."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from layerscope.errors import RenderError
from layerscope.render.catalogue import digest
from layerscope.render.files import write_whole
from layerscope.render.scene import STAGE
from layerscope.render.settings import RenderSettings
from layerscope.render.table import ImageRow
from layerscope.rendered_set import LATENTS, MANIFEST
from layerscope.types import SPLITS
from layerscope.version import __version__

SCHEMA = "objects3d/1"
DECISIVE = ("schema", "settings", "meshes_sha256", "renderer", "renderer_version")
"""What two runs must have in common to share a folder: it decides latents and pixels."""


def manifest(
    settings: RenderSettings, rows: Sequence[ImageRow], renderer_version: str
) -> dict[str, Any]:
    """Return the record of a data set that is still to be rendered."""
    instances = list({row.instance.name: row.instance for row in rows}.values())
    return {
        "schema": SCHEMA,
        "complete": False,
        "layerscope_version": __version__,
        "renderer": settings.renderer,
        "renderer_version": renderer_version,
        "settings": asdict(settings) | {"meshes": settings.meshes and str(settings.meshes)},
        "meshes_sha256": digest(instances),
        "latents": {
            name: {**span._asdict(), "distribution": "uniform"} for name, span in LATENTS.items()
        },
        "rotation": "extrinsic xyz: about x by yaw, then about y by pitch, then about z by roll",
        "stage": asdict(STAGE),
        "categories": dict(sorted(Counter(instance.category for instance in instances).items())),
        "splits": {"objects": _counts(rows, each="object"), "images": _counts(rows, each="image")},
    }


def check_agreement(folder: Path, wanted: dict[str, Any]) -> None:
    """Check that the folder is new or was made with what is wanted now.

    Raises:
        RenderError: It was made otherwise; the message says what differs.
    """
    file = folder / MANIFEST
    if not file.exists():
        if (folder / "images").exists():
            raise RenderError(
                f"{str(folder)!r} holds images but no dataset.json.",
                hint="Choose another folder: what is there cannot be told to belong to this data "
                "set.",
            )
        return
    there, here = _decisive(_read(file)), _decisive(wanted)
    differing = [
        f"{name} {there.get(name)!r} there, {here.get(name)!r} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if differing:
        raise RenderError(
            f"{str(folder)!r} holds another data set: {'; '.join(differing)}.",
            hint="Choose another folder, or repeat with the settings that are there.",
        )


def write_manifest(folder: Path, record: dict[str, Any], *, complete: bool) -> None:
    """Write the record, marked as complete or not."""
    text = json.dumps(record | {"complete": complete}, indent=2) + "\n"
    write_whole(folder / MANIFEST, text.encode())


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise RenderError(
            f"{str(file)!r} is not JSON: {error}.", hint="Choose another folder."
        ) from error
    if not isinstance(found, dict):
        raise RenderError(f"{str(file)!r} is not a data set's.", hint="Choose another folder.")
    return found


def _decisive(record: dict[str, Any]) -> dict[str, Any]:
    chosen = {name: record.get(name) for name in DECISIVE if name != "settings"}
    settings = dict(record.get("settings") or {})
    settings.pop("meshes", None)  # the folder may move: its content's digest is compared instead
    return chosen | settings


def _counts(rows: Sequence[ImageRow], each: str) -> dict[str, int]:
    seen = {(row.instance.name if each == "object" else row.image): row.split for row in rows}
    counts = Counter(seen.values())
    return {split: counts[split] for split in SPLITS}
