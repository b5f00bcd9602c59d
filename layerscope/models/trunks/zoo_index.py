"""Writes the index by which a state dict's architecture is found: ``python -m`` this module."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args

from layerscope.errors import CheckpointError
from layerscope.models.trunks.architectures import (
    Architecture,
    Library,
    all_names,
    digest,
    forms,
    versions,
)

PATH = Path(__file__).with_name("zoo.json")
_LOG = logging.getLogger(__name__)


def indexed(architectures: list[Architecture]) -> dict[str, Any]:
    """Return the index of the architectures.

    Args:
        architectures: Each is built on torch's ``meta`` device, which takes no memory.

    Returns:
        ``names``: architectures by the digest of the names and shapes of all their tensors but the
        classifier's and the position embeddings; ``classifiers``: what classifiers are called;
        ``left_out``: what cannot be built or traced, with the reason.
    """
    names: defaultdict[str, list[str]] = defaultdict(list)
    classifiers: set[tuple[str, ...]] = set()
    left_out: dict[str, str] = {}
    for architecture in architectures:
        try:
            found = list(forms(architecture))
        except _FAILURES as error:
            left_out[str(architecture)] = f"{type(error).__name__}: {error}".split("\n")[0][:100]
            _LOG.warning("%s: %s", architecture, left_out[str(architecture)])
            continue
        for removed, shapes in found:
            classifiers.add(removed)
            entry = names[digest(shapes)]
            short = f"{architecture.library}:{architecture.name}"
            if short not in entry:
                entry.append(short)
    return {
        "versions": versions(),
        "classifiers": sorted(classifiers),
        "names": dict(sorted(names.items(), key=lambda item: item[1])),
        "left_out": left_out,
    }


_FAILURES = (
    CheckpointError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    LookupError,
    NotImplementedError,
    ImportError,
)


def main() -> None:
    """Write the index of everything that the installed libraries have."""
    everything = [
        Architecture(library, name) for library in get_args(Library) for name in all_names(library)
    ]
    index = indexed(everything)
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in index["names"].items())
    rest = {key: index[key] for key in ("versions", "classifiers", "left_out")}
    head = json.dumps(rest, indent=1)[:-2]
    PATH.write_text(f'{head},\n "names": {{\n{lines}\n}}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
