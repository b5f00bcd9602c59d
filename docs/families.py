"""Writes the table of checkpoint families into checkpoints.md; ``make reference`` runs it."""

from __future__ import annotations

from pathlib import Path

from layerscope.models.families import families

PAGE = Path(__file__).parent / "checkpoints.md"
BEGIN, END = "<!-- families: made by docs/families.py -->\n", "<!-- end of families -->\n"


def table() -> str:
    """Return the table of every registered family, as Markdown."""
    rows = ["| name | what it is | how its files are laid out | weights to choose | read from |"]
    rows.append("|---|---|---|---|---|")
    for name, family in families.items():
        branches = ", ".join(f"`{branch}`" for branch in family.branches) or "one set"
        rows.append(
            f"| `{name}` | {family.title} | {_cell(family.layout)} | {branches} | {family.source} |"
        )
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def page() -> str:
    """Return the whole page with today's table in it."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
