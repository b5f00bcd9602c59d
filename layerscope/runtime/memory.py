"""How much memory this process may have: what decides between holding rows and streaming them."""

from __future__ import annotations

import os
from pathlib import Path

LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where Linux writes the limit of a container or of a SLURM job, in its two versions."""


def memory() -> int:
    """Return bytes: those of the machine, or fewer where a container or a job has a limit."""
    known = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return min(known + [limit for path in LIMITS if (limit := _limit(path)) is not None])


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
