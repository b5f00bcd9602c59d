"""One ``.beton`` file, open for reading: what it holds, and that all of it is there."""

from __future__ import annotations

import hashlib
import itertools
import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from layerscope.data.betons import layout
from layerscope.data.decoding import unreadable
from layerscope.errors import SourceError

_AGAIN = "Write the file again, with layerscope pack or with FFCV."

_UNKNOWN: tuple[np.dtype[Any], ...] = (
    layout.IMAGE_PART,
    layout.PARTS[layout.INTEGER],
    layout.PARTS[layout.BYTES],
)
"""How the metadata of a field of the user's own can look: as that of the field it is derived from.
Their sizes and alignments are all that there are among FFCV's own fields."""

_EXCERPTS, _EXCERPT = 64, 4096
"""Images that are looked at to know a file again, and bytes of each."""

_MOST_UNKNOWN = 4
"""Fields of the user's own in one file, for each of which all of these are tried."""


class Field(NamedTuple):
    """A field of a file."""

    name: str
    kind: int
    """The number of its type."""


class StoredImage(NamedTuple):
    """Where the images of a file are, one entry a row."""

    mode: npt.NDArray[np.uint8]
    width: npt.NDArray[np.uint16]
    height: npt.NDArray[np.uint16]
    at: npt.NDArray[np.uint64]
    size: npt.NDArray[np.uint64]


class Beton:
    """A file, after it has been checked that every image lies within it.

    Images are read with ``pread``, not from a memory map: while one thread waits for the disk the
    others go on, and a file that shrinks meanwhile is an error, not the end of the process.

    Args:
        path: The file.
        image: The field with the images; by default the first that is known to hold some.

    Raises:
        SourceError: The file is no ``.beton`` file, unfinished or damaged, or has no such field.
    """

    def __init__(self, path: Path, image: str | None = None) -> None:
        self.path = path
        self._asked = image
        self._file = self._open()
        weakref.finalize(self, os.close, self._file)
        self._size = os.fstat(self._file).st_size
        header = self._read_header()
        self.samples = int(header["samples"])
        self._metadata_at = (
            layout.HEADER.itemsize + int(header["fields"]) * layout.DESCRIPTOR.itemsize
        )
        descriptors = self._read_table(
            layout.DESCRIPTOR, layout.HEADER.itemsize, int(header["fields"])
        )
        self.fields = self._read_fields(descriptors)
        self.image = self._choose_image_field(image)
        self._allocations = self._read_allocations(int(header["allocations_at"]))
        self.metadata, self.stored = self._read_metadata()
        self.identity = self._digest_contents(
            header.tobytes() + descriptors.tobytes() + self.metadata.tobytes()
        )

    def __reduce__(self) -> tuple[type[Beton], tuple[Path, str | None]]:
        # A worker process opens the file itself.
        return Beton, (self.path, self._asked)

    @property
    def integers(self) -> tuple[str, ...]:
        """The names of the fields that hold a whole number."""
        return tuple(field.name for field in self.fields if field.kind == layout.INTEGER)

    @property
    def parts(self) -> Mapping[str, np.dtype[Any]]:
        """By field, how its part of the metadata looks."""
        return {field.name: self.metadata.dtype[i] for i, field in enumerate(self.fields)}

    def integer(self, name: str) -> npt.NDArray[np.int64]:
        """Return the (n,) values of a field of whole numbers."""
        return self._part(self.metadata, name).astype(np.int64)

    def read(self, row: int) -> bytes | npt.NDArray[np.uint8]:
        """Return a JPEG file's bytes, or (h, w, 3) pixels.

        Raises:
            SourceError: The file is shorter than it was.
        """
        stored = self.stored
        size = int(stored.size[row])
        data = self._read_bytes(int(stored.at[row]), size)
        if len(data) < size:
            raise unreadable(f"{self.path}, row {row}", "the file has been cut off")
        if stored.mode[row] == layout.JPEG:
            return data
        shape = (int(stored.height[row]), int(stored.width[row]), 3)
        return np.frombuffer(data, np.uint8).reshape(shape)

    def _digest_contents(self, head: bytes) -> str:
        """Return the sha256 that stands for the contents, without reading every pixel.

        Images that are stored raw have the same sizes whatever they show, so the middle of a few
        is looked at as well.
        """
        digest = hashlib.sha256(head)
        digest.update(f"{self._size}\n".encode())
        count = min(_EXCERPTS, self.samples)
        for row in (np.arange(count) * self.samples // count).tolist():
            size = int(self.stored.size[row])
            length = min(size, _EXCERPT)
            digest.update(self._read_bytes(int(self.stored.at[row]) + (size - length) // 2, length))
        return digest.hexdigest()

    def _open(self) -> int:
        reason: str | None = "it is a folder"
        try:
            if not self.path.is_dir():
                return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            reason = error.strerror
        raise SourceError(
            f"The file {str(self.path)!r} cannot be opened: {reason}.",
            hint="Give the path of a .beton file.",
        )

    def _read_bytes(self, position: int, size: int) -> bytes:
        """Return bytes of the file, fewer where it ends; one call gives 2 GiB at most."""
        data = os.pread(self._file, size, position)
        while 0 < len(data) < size:
            more = os.pread(self._file, size - len(data), position + len(data))
            if not more:
                break
            data += more
        return data

    def _read_table(self, kind: np.dtype[Any], position: int, count: int) -> npt.NDArray[Any]:
        size = kind.itemsize * count
        if position + size > self._size:
            raise self._damage_error(f"it ends after {self._size:,} bytes")
        return np.frombuffer(self._read_bytes(position, size), kind)

    def _read_header(self) -> Any:
        if self._size < layout.HEADER.itemsize:
            raise self._damage_error(f"it has {self._size} bytes")
        header = self._read_table(layout.HEADER, 0, 1)
        version, page = int(header["version"][0]), int(header["page_size"][0])
        if version != layout.VERSION or page.bit_count() != 1:
            raise SourceError(
                f"{str(self.path)!r} is no .beton file of version {layout.VERSION}.",
                hint="Give a file that FFCV 1.0 or layerscope pack has written.",
            )
        if not header["samples"][0] or not header["fields"][0]:
            raise self._damage_error("it holds no image")
        if not header["allocations_at"][0]:
            raise self._damage_error("whoever wrote it never finished it")
        return header[0]

    def _read_fields(self, descriptors: npt.NDArray[Any]) -> tuple[Field, ...]:
        # A name ends at its first zero.
        words = [name.partition(b"\0")[0] for name in descriptors["name"]]
        names = [word.decode("ascii", "replace") for word in words]
        fields = tuple(map(Field, names, descriptors["type"].tolist()))
        strange = [it for it in fields if it.kind not in layout.PARTS and it.kind != layout.CUSTOM]
        if strange:
            raise self._damage_error(f"its field {strange[0].name!r} is of type {strange[0].kind}")
        if len(set(names)) < len(names):
            raise self._damage_error("two of its fields have the same name")
        return fields

    def _choose_image_field(self, asked: str | None) -> str:
        """Return the name of the field with the images."""
        able = (layout.IMAGE,) if asked is None else (layout.IMAGE, layout.CUSTOM)
        found = [it.name for it in self.fields if it.kind in able and asked in (None, it.name)]
        if found:
            return found[0]
        what = "field of images" if asked is None else f"image field called {asked!r}"
        raise SourceError(
            f"{str(self.path)!r} has no {what}; its fields are "
            f"{', '.join(field.name for field in self.fields)}.",
            hint="Name the one that holds the images: --data beton=PATH,image=NAME.",
        )

    def _read_allocations(self, position: int) -> npt.NDArray[Any]:
        """Return the allocation table, in the order of the file."""
        count, rest = divmod(self._size - position, layout.ALLOCATION.itemsize)
        if rest or count < self.samples:
            raise self._damage_error(f"it ends after {self._size:,} bytes, within its last table")
        table = self._read_table(layout.ALLOCATION, position, count)
        ordered = table[np.lexsort((table["size"], table["at"]))]
        ends = ordered["at"] + ordered["size"]
        if ends.max() > position or (ends < ordered["at"]).any():
            raise self._damage_error("it allots bytes that it does not have")
        return ordered

    def _read_metadata(self) -> tuple[npt.NDArray[Any], StoredImage]:
        """Return the metadata under the one layout that fits, and where the images are."""
        wrong: list[str] = []
        for kind in self._possible_layouts():
            if self._metadata_at + kind.itemsize * self.samples > self._size:
                continue
            metadata = self._read_table(kind, self._metadata_at, self.samples)
            stored, reason = self._locate_images(metadata)
            if not reason:
                return metadata, stored
            wrong.append(reason)
        own = [field.name for field in self.fields if field.kind == layout.CUSTOM]
        if not own:
            raise self._damage_error(wrong[0] if wrong else f"it ends after {self._size:,} bytes")
        raise SourceError(
            f"{str(self.path)!r} has a field of its own, {own[0]!r}, of unknown layout.",
            hint="Write the file again without it, or pack the images with layerscope pack.",
        )

    def _possible_layouts(self) -> Iterator[np.dtype[Any]]:
        """Yield how an entry of the metadata may look; one way where all fields are FFCV's own."""
        choices = [self._possible_parts(field) for field in self.fields]
        if sum(len(them) > 1 for them in choices) > _MOST_UNKNOWN:
            return
        seen = set()
        for parts in itertools.product(*choices):
            kind = layout.metadata_type(parts)
            offsets = tuple(offset for _, offset, *_ in (kind.fields or {}).values())
            if (offsets, kind.itemsize) not in seen:
                seen.add((offsets, kind.itemsize))
                yield kind

    def _possible_parts(self, field: Field) -> tuple[np.dtype[Any], ...]:
        if field.kind != layout.CUSTOM:
            return (layout.PARTS[field.kind],)
        return (layout.IMAGE_PART,) if field.name == self.image else _UNKNOWN

    def _locate_images(self, metadata: npt.NDArray[Any]) -> tuple[StoredImage, str]:
        """Return where the images are by this metadata, and what is wrong with it if anything."""
        images = self._part(metadata, self.image)
        table = self._allocations
        places = np.searchsorted(table["at"], images["data_ptr"], side="right") - 1
        theirs = table[np.maximum(places, 0)]
        mode, width, height, at = (
            images[name].copy() for name in ("mode", "width", "height", "data_ptr")
        )
        stored = StoredImage(mode, width, height, at, theirs["size"].copy())
        pixels = 3 * stored.width.astype(np.uint64) * stored.height
        strays = (places < 0) | (theirs["at"] != at)
        strays |= theirs["sample"] != np.arange(self.samples, dtype=np.uint64)
        strays |= (stored.mode > layout.RAW) | (stored.size == 0)
        strays |= (stored.mode == layout.RAW) & (stored.size != pixels)
        if strays.any():
            return stored, f"the image of row {int(np.flatnonzero(strays)[0])} is not in it"
        return stored, ""

    def _part(self, metadata: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
        place = [field.name for field in self.fields].index(name)
        part: npt.NDArray[Any] = metadata[f"f{place}"]
        return part

    def _damage_error(self, reason: str) -> SourceError:
        return SourceError(f"{str(self.path)!r} is damaged: {reason}.", hint=_AGAIN)
