"""Writing so that a reader finds the old file or the new one, and a killed writer loses a line."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from layerscope.errors import DiskError, LayerScopeError, SettingsError


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part.

    Raises:
        DiskError: The disk is full; the old file is unharmed.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    with _full_disk_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def replace_json(path: Path, record: object, *, allow_nan: bool = False) -> None:
    """Write a record as JSON for people and programs, as :func:`replace_file` does."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=allow_nan)
    replace_file(path, lambda file: file.write(f"{text}\n".encode()))


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append lines and wait until the disk has them; a torn last line is dropped first.

    Raises:
        DiskError: The disk is full; what was there before is unharmed.
    """
    with _full_disk_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            # Jobs of one array write into one table; a line of the other is not a torn one.
            fcntl.flock(file, fcntl.LOCK_EX)
            _drop_torn_line(file)
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())


def complete_lines(path: Path) -> list[bytes]:
    """Return the lines that were written whole; none where there is no file."""
    # What follows the last newline is nothing, or the torn line of a killed writer.
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


@contextmanager
def damage_explained(problem: str, hint: str) -> Iterator[None]:
    """Say what is wrong with a file, if what was read of it makes no record."""
    try:
        yield
    except (ValueError, TypeError, KeyError, SettingsError):
        raise LayerScopeError(problem, hint=hint) from None


def _drop_torn_line(file: BinaryIO) -> None:
    file.seek(0)
    end = file.read().rfind(b"\n") + 1
    file.truncate(end)
    file.seek(end)


@contextmanager
def _full_disk_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskError(
            f"The disk is full; {str(path)!r} was not written.",
            hint="Make room and repeat the command; finished cells are kept.",
        ) from error
