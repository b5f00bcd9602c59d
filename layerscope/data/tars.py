"""Images inside tar files: found once, then read from where they lie, without unpacking."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from layerscope.data.decoding import unreadable
from layerscope.errors import SourceError

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
"""How the names of compressed tar files end."""
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
"""How compressed files begin, whatever they are called: gzip, bzip2, xz, zstd."""
_BLOCK = 512
_AGAIN = "Copy or download the file again."


class Member(NamedTuple):
    """A file in a tar file."""

    name: str
    offset: int
    """The position of its first byte in the tar file."""
    size: int
    """In bytes."""


def members(path: Path) -> Iterator[Member]:
    """Yield the regular files in a tar file, in its order.

    Raises:
        SourceError: The file is compressed, no tar file, or breaks off.
    """
    try:
        with path.open("rb") as file:
            if file.read(8).startswith(_MAGIC):
                raise compressed(path)
            file.seek(0)
            yield from _members(path, file)
    except OSError as error:
        raise SourceError(
            f"{str(path)!r} cannot be read: {error.strerror or error}.", hint=_AGAIN
        ) from error


def compressed(path: Path) -> SourceError:
    """Return the error for a compressed tar file: it has no places to read from."""
    return SourceError(
        f"{str(path)!r} is compressed, so that no image can be read by itself.",
        hint="Unpack it to a .tar file, for instance with gunzip; images hardly get smaller.",
    )


def _members(path: Path, file: IO[bytes]) -> Iterator[Member]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # a million would stay in memory
                if member.issparse():
                    raise SourceError(
                        f"{str(path)!r} stores {member.name!r} as a sparse file.",
                        hint="Write the tar file without --sparse.",
                    )
                if member.isreg():
                    yield Member(member.name, member.offset_data, member.size)
            end = tar.offset
    except tarfile.TarError as error:
        raise SourceError(f"{str(path)!r} is no whole tar file: {error}.", hint=_AGAIN) from error
    # tarfile takes a damaged header for the end; the real end is a block of zeros.
    file.seek(end)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise SourceError(
            f"{str(path)!r} is no whole tar file: at byte {end:,} is neither a file nor the end.",
            hint=_AGAIN,
        )


@dataclass(frozen=True, slots=True)
class TarImages:
    """Image files inside tar files.

    Every image is read by itself with a call that has its own position, so that threads and
    processes do not disturb each other, and no file stays open, of which there may be thousands.

    Args:
        shards: The tar files.
        names: (n,) of the images inside them.
        shard: (n,) which of the tar files each is in.
        offset: (n,) of the first byte.
        size: (n,) in bytes.
    """

    shards: Sequence[Path]
    names: Sequence[str]
    shard: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]

    def read(self, row: int) -> bytes:
        size = int(self.size[row])
        try:
            with self.shards[self.shard[row]].open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), size, int(self.offset[row]))
        except OSError as error:
            raise unreadable(self.place(row), error.strerror or str(error)) from error
        if len(data) < size:
            raise unreadable(self.place(row), "the tar file is shorter than it was")
        return data

    def place(self, row: int) -> str:
        return f"{self.shards[self.shard[row]]}, {self.names[row]}"

    def select(self, rows: npt.NDArray[np.int64]) -> TarImages:
        return replace(
            self,
            names=[self.names[row] for row in rows.tolist()],
            shard=self.shard[rows],
            offset=self.offset[rows],
            size=self.size[rows],
        )
