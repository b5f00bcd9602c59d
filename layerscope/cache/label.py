"""The label: what a file is like, written before its first byte of HDF5, and the seal over it all.

HDF5 can crash on a file of which a byte changed. So nothing of a cache is given to it before the
bytes that it would interpret have been compared with their sha256. That, where each dataset lies,
and the sha256 of those that are written only once, stand in the label: JSON in the user block,
which HDF5 leaves to others, twice, each copy behind a line with its own sha256.

The seal is the sha256 of the label, of the rows' validity and of the checksums of every row; since
these depend on every feature, two caches with the same seal hold the same. It is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py

from layerscope.cache.layout import (
    CHECKSUMS,
    FEATURES,
    LABEL,
    ROW_STATE,
    ROW_VALID,
    SCHEMA,
    SEAL,
)
from layerscope.errors import CacheError

SEAL_BYTES = 64
STRUCTURE = "structure"
"""What HDF5 interprets, and with it the attributes."""
_LATER = (ROW_VALID, ROW_STATE, SEAL)
_BLOCK = 2**22
_MAGIC = b"layerscope-label "
_USUAL, _LARGEST = 2**16, 2**22
"""Bytes in which a label usually ends, and in which every one does."""
_PER_DATASET = 2 * 160
"""Bytes granted to a dataset in both copies, beside its name."""

Span = tuple[int, int]
"""(offset, bytes)."""


@dataclass(frozen=True, slots=True)
class Label:
    """Where the bytes of a file belong, and what those that are written only once should be."""

    size: int
    """Of the file in bytes."""
    room: int
    """Of the user block in bytes."""
    rows: Mapping[str, Span]
    """By dataset, those that are filled row by row."""
    digests: Mapping[str, tuple[int, int, str]]
    """By dataset, those that are written only once: offset, bytes, sha256."""
    structure: str
    """sha256 of everything else behind the label."""

    @property
    def text(self) -> str:
        """Canonical JSON."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True)


def room_for_label(names: Iterable[str]) -> int:
    """Return the size of a user block in which a label of these datasets fits twice."""
    names = list(names)
    needed = 2048 + sum(2 * len(name.encode()) + _PER_DATASET for name in names)
    room = 1 << (needed - 1).bit_length()
    if room > _LARGEST:
        raise CacheError(
            f"A cache of {len(names)} datasets needs a label of {room:,} bytes.",
            hint="Choose fewer layers with --cuts.",
        )
    return room


def write_label(path: Path) -> None:
    """Write the label of a file that is laid out, with all that is written only once."""
    with h5py.File(path, "r") as file:
        room = int(file.userblock_size)
        spans = _spans(file)
    later = {
        name: span
        for name, span in spans.items()
        if name in _LATER or name.startswith((FEATURES, CHECKSUMS))
    }
    with path.open("r+b") as opened:
        handle, size = opened.fileno(), path.stat().st_size
        once = {
            name: (*spans[name], _sha256(handle, [spans[name]]))
            for name in spans.keys() - later.keys()
        }
        structure = _sha256(handle, _between(spans.values(), room, size))
        _write_both(handle, Label(size, room, later, once, structure))


def mend_label(path: Path) -> None:
    """Write both copies of the label from the one that is unharmed."""
    label = read_label(path)
    with path.open("r+b") as opened:
        _write_both(opened.fileno(), label)
        os.fsync(opened.fileno())


def read_label(path: Path) -> Label:
    """Return the label of a file.

    Raises:
        CacheError: It has none, or both copies are damaged.
    """
    copies = list(_copies(path))
    if not copies:
        raise CacheError(f"{str(path)!r} has no label.", hint="It is no cache of this format.")
    for text in copies:
        if text is not None:
            known = json.loads(text)
            known.pop("schema")
            known["digests"] = {name: tuple(span) for name, span in known["digests"].items()}
            return Label(**known)
    raise CacheError(
        f"Both copies of the label of {str(path)!r} are damaged.",
        hint="Nothing in it can be trusted; extract it again with --existing replace.",
    )


def has_label(path: Path) -> bool:
    """Return whether a file begins as ours do, damaged or not."""
    return bool(list(_copies(path)))


def wrong_with(path: Path, names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return what differs from the label: datasets, the structure, a copy of the label itself.

    Of datasets only those named matter; all by default.

    Raises:
        CacheError: The file has no label that could be trusted.
    """
    label = read_label(path)
    copies = list(_copies(path))
    wrong = [LABEL] if len(copies) < 2 or None in copies else []
    with path.open("rb") as opened:
        handle, size = opened.fileno(), path.stat().st_size
        spans = [span[:2] for span in label.digests.values()] + list(label.rows.values())
        between = _between(spans, label.room, label.size)
        if size != label.size or _sha256(handle, between) != label.structure:
            wrong.append(STRUCTURE)
        wrong += [
            name
            for name, (offset, count, digest) in label.digests.items()
            if (names is None or name in names) and _sha256(handle, [(offset, count)]) != digest
        ]
    return tuple(sorted(wrong))


def open_file(path: Path) -> h5py.File:
    """Open a file for reading, once what HDF5 interprets of it is known to be unharmed.

    A file without a label, which is another program's or an older one, is opened as it is.

    Raises:
        CacheError: What HDF5 would interpret is damaged.
        OSError: It is no HDF5 file.
    """
    if has_label(path) and STRUCTURE in wrong_with(path, ()):
        raise CacheError(
            f"The structure of {str(path)!r} is damaged or cut short.",
            hint="If it was copied, copy it again; otherwise extract it again with --existing "
            "replace.",
        )
    return h5py.File(path, "r")


def seal_of(path: Path) -> str:
    """Return the seal that a file should have, as it is now."""
    label = read_label(path)
    whole = hashlib.sha256(label.text.encode())
    with path.open("rb") as opened:
        names = [name for name in sorted(label.rows) if not name.startswith(FEATURES)]
        spans = [label.rows[name] for name in names if name not in (ROW_STATE, SEAL)]
        whole.update(_sha256(opened.fileno(), spans).encode())
    return whole.hexdigest()


def write_seal(path: Path) -> None:
    """Say in a file that it is whole."""
    offset, _ = read_label(path).rows[SEAL]
    seal = seal_of(path).encode()
    with path.open("r+b") as opened:
        os.pwrite(opened.fileno(), seal, offset)
        os.fsync(opened.fileno())


def seal_in(path: Path) -> str:
    """Return the seal that is written in a file, empty where there is none."""
    offset, count = read_label(path).rows[SEAL]
    with path.open("rb") as opened:
        written = os.pread(opened.fileno(), count, offset)
    return written.decode("ascii", "replace") if any(written) else ""


def _spans(file: h5py.File) -> dict[str, Span]:
    found: dict[str, Span] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not item.is_virtual and item.size:
            found[name] = item.id.get_offset(), item.id.get_storage_size()

    file.visititems(visit)
    return found


def _between(spans: Iterable[Span], first: int, end: int) -> list[Span]:
    """Return what lies outside of some spans."""
    gaps = []
    for offset, count in sorted(tuple(span) for span in spans):
        if offset > first:
            gaps.append((first, offset - first))
        first = max(first, offset + count)
    return [*gaps, (first, end - first)] if end > first else gaps


def _sha256(handle: int, spans: Iterable[Span]) -> str:
    whole = hashlib.sha256()
    for offset, count in spans:
        whole.update(f"{offset}+{count};".encode())
        for start in range(offset, offset + count, _BLOCK):
            whole.update(os.pread(handle, min(_BLOCK, offset + count - start), start))
    return whole.hexdigest()


def _write_both(handle: int, label: Label) -> None:
    half = label.room // 2
    text = label.text.encode()
    copy = _MAGIC + hashlib.sha256(text).hexdigest().encode() + b"\n" + text + b"\n"
    if len(copy) > half:
        raise ValueError(f"a label of {len(copy)} bytes does not fit into {half}")
    for start in (0, half):
        os.pwrite(handle, copy + b" " * (half - len(copy)), start)


def _copies(path: Path) -> Iterator[str | None]:
    """Yield the text of each copy of the label, None for one that is damaged."""
    with path.open("rb") as file:
        first = _copy_in(file.read(_USUAL))
        if first is not None:
            yield first
            file.seek(json.loads(first)["room"] // 2)
            second = file.read(len(_MAGIC) + SEAL_BYTES + len(first.encode()) + 2)
            if second.startswith(_MAGIC):
                yield _copy_in(second)
            return
        # Of the second of two copies in two halves of a user block, a power of two.
        file.seek(0)
        head = file.read(_LARGEST)
    starts = [at for at in (0, *(2**k for k in range(10, 22))) if head.startswith(_MAGIC, at)]
    yield from (_copy_in(head[at:]) for at in starts)


def _copy_in(head: bytes) -> str | None:
    """Return the text of the copy of a label that some bytes begin with, if it is unharmed."""
    if not head.startswith(_MAGIC):
        return None
    line, _, rest = head[len(_MAGIC) :].partition(b"\n")
    text = rest.partition(b"\n")[0]
    return text.decode() if hashlib.sha256(text).hexdigest().encode() == line else None
