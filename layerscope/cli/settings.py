"""Resolved settings beside the results, in a form that ``--config`` takes back."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerscope.errors import SettingsError
from layerscope.version import __version__


def write(path: Path, command: str, values: Mapping[str, Any]) -> None:
    """Write the values that a command ran with, after all defaults were filled in.

    Other commands' settings in the same file, usually ``settings.json``, are kept.
    """
    known = json.loads(path.read_text()) if path.is_file() else {}
    known["layerscope"] = __version__
    known[command] = dict(values)
    text = json.dumps(known, indent=2, ensure_ascii=False, default=os.fspath) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Jobs of an array write into one folder at the same time, and each finds the file whole.
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    part.write_text(text)
    part.replace(path)


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the defaults by command of a settings file."""
    hint = "Give the settings.json that an earlier run left beside its results."
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError:
        raise SettingsError(f"There is no settings file {str(path)!r}.", hint=hint) from None
    except ValueError:
        raise SettingsError(f"The settings file {str(path)!r} is not JSON.", hint=hint) from None
    if not isinstance(known, dict) or "layerscope" not in known:
        raise SettingsError(f"{str(path)!r} holds no LayerScope settings.", hint=hint)
    return {name: values for name, values in known.items() if isinstance(values, dict)}
