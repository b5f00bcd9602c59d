"""Writing a card: the small part of TOML that a card needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml(content: Mapping[str, Any]) -> str:
    """Return a card as TOML: strings, numbers, lists of them, and one level of tables.

    Examples:
        >>> print(toml({"name": "mine", "training": {"epochs": 3}}), end="")
        name = "mine"
        <BLANKLINE>
        [training]
        epochs = 3
    """
    tables = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    lines = [_line(key, value) for key, value in content.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(_line(key, value) for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any) -> str:
    # A JSON string, number, boolean or list of them is written the same way in TOML.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"
