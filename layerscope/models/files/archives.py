"""Zip archives as torch.save and TorchScript write them: uncompressed records, read in place."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

from layerscope.models.files.pickles import Malformed, read_pickle
from layerscope.models.files.records import Interpreter, require_trust
from layerscope.models.files.storages import Span, Tensors

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED, _UNICODE = 1, 1 << 11
_LARGEST_PICKLE = 1 << 28
_BLOCK = 1 << 24
_UNREADABLE = (
    zipfile.BadZipFile,
    ValueError,
    OverflowError,
    OSError,
    NotImplementedError,
    struct.error,
)
"""What the standard library raises of a damaged table of contents."""


def read_archive(path: Path, trust: Collection[str]) -> Any:
    """Return what the archive of a checkpoint holds.

    Raises:
        Malformed: It is damaged, no checkpoint, or holds code.
    """
    archive = Archive(path)
    archive.require_little_endian()
    pickle = read_pickle(archive.record("data.pkl"))
    require_trust(pickle, trust, archive.scripted)
    # A value takes at least a byte.
    tensors = Tensors(archive.storage, len(archive.mapped))
    return Interpreter(tensors, pickle.reads).value(pickle.value)


@dataclass(frozen=True)
class Archive:
    """A zip archive whose table of contents has been checked against its bytes."""

    path: Path

    @cached_property
    def mapped(self) -> torch.UntypedStorage:
        """The bytes of the whole file, read when they are used."""
        size = self.path.stat().st_size
        return cast(
            torch.UntypedStorage, torch.UntypedStorage.from_file(str(self.path), False, size)
        )

    @cached_property
    def members(self) -> Mapping[str, zipfile.ZipInfo]:
        """What the archive holds, by name."""
        try:
            with zipfile.ZipFile(self.path) as file:
                listed = file.infolist()
        except _UNREADABLE as error:
            raise Malformed(
                "is damaged or truncated: the table of contents of its zip archive cannot be read"
            ) from error
        members = {info.filename: info for info in listed}
        if len(members) < len(listed):
            raise Malformed("is damaged: its zip archive holds two records of one name")
        self._check(members)
        return members

    def _check(self, members: Mapping[str, zipfile.ZipInfo]) -> None:
        size, end = len(self.mapped), 0
        for info in sorted(members.values(), key=lambda info: info.header_offset):
            if info.header_offset < end or info.header_offset + info.compress_size > size:
                raise Malformed(
                    f"is damaged: its record {info.filename!r} claims {info.compress_size} bytes "
                    "that are not there or are another's"
                )
            end = info.header_offset + info.compress_size

    @cached_property
    def prefix(self) -> str:
        """The folder in the archive in which all of its records lie, with its slash."""
        found = [name for name in self.members if name.endswith("data.pkl")]
        folders = {name.removesuffix("data.pkl") for name in found if name.count("/") <= 1}
        if len(folders) != 1:
            raise self._foreign()
        return folders.pop()

    @cached_property
    def scripted(self) -> bool:
        """Whether it is a TorchScript archive."""
        return any(name.startswith(f"{self.prefix}code/") for name in self.members)

    def _foreign(self) -> Malformed:
        names = sorted(self.members)
        if any(name.endswith(".npy") for name in names):
            return Malformed(
                "is an archive of NumPy arrays (.npz)",
                hint="Convert it to a state dict, or give the checkpoint that it was made from.",
            )
        if any(name.endswith("model.json") for name in names):
            return Malformed(
                "is an exported program or a TorchScript archive of a torch before 1.4",
                hint="Load it with the torch that wrote it and save its state dict.",
            )
        shown = ", ".join(map(ascii, names[:3])) or "nothing"
        return Malformed(
            f"is a zip archive but no checkpoint: it holds {shown}",
            hint="Unpack it and give the checkpoint inside.",
        )

    def require_little_endian(self) -> None:
        """Refuse an archive that was written on a machine of the other byte order.

        Raises:
            Malformed: It was.
        """
        if f"{self.prefix}byteorder" in self.members and self.record("byteorder") != b"little":
            raise Malformed(
                "was written on a machine of another byte order",
                hint="Load it there and save it as safetensors.",
            )

    def record(self, name: str) -> bytes:
        """Return the bytes of a small record of the archive's folder.

        Raises:
            Malformed: There is none, or it is damaged or large.
        """
        start, end = self._where(name)
        if end - start > _LARGEST_PICKLE:
            raise Malformed(f"is not believable: its record {name} is {end - start} bytes long")
        return bytes(self._view(start, end))

    def storage(self, span: Span) -> torch.UntypedStorage:
        """Return the bytes of a storage, in place.

        Raises:
            Malformed: There is none, or it is damaged or of another size.
        """
        start, end = self._where(f"data/{span.key}")
        held = (end - start) // span.dtype.itemsize
        if held != span.first + span.values:
            raise Malformed(
                f"is damaged: its storage {span.key!r} claims {span.values} values and has {held}"
            )
        return span.of(self.mapped, start)

    def _where(self, name: str) -> tuple[int, int]:
        info = self.members.get(self.prefix + name)
        if info is None:
            raise Malformed(f"is damaged: its archive has no record {name!r}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise Malformed(
                f"is no file that torch wrote: its record {name!r} is compressed and would be "
                f"{info.file_size} bytes long",
                hint="Unpack it and save its state dict with torch.save.",
            )
        if info.flag_bits & _ENCRYPTED:
            raise Malformed("is encrypted", hint="Decrypt it first.")
        start = self._behind_header(info)
        if start + info.file_size > len(self.mapped):
            raise Malformed(f"is damaged or truncated: its record {name!r} is cut short")
        # torch.serialization.set_crc32_options(False) writes zeros throughout.
        checked = any(each.CRC for each in self.members.values())
        if checked and self._crc32(start, start + info.file_size) != info.CRC:
            raise Malformed(f"is damaged: its record {name!r} is not as it was written")
        return start, start + info.file_size

    def _behind_header(self, info: zipfile.ZipInfo) -> int:
        end = info.header_offset + _LOCAL_HEADER.size
        header = bytes(self._view(info.header_offset, end))
        if len(header) == _LOCAL_HEADER.size:
            coding = "utf-8" if info.flag_bits & _UNICODE else "cp437"
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            name = bytes(self._view(end, end + name_length))
            if signature == _LOCAL_SIGNATURE and name == info.orig_filename.encode(coding):
                return int(end + name_length + extra_length)
        raise Malformed(f"is damaged: its record {info.filename!r} does not lie where it should")

    def _crc32(self, start: int, end: int) -> int:
        checksum = 0
        for block in range(start, end, _BLOCK):
            checksum = zlib.crc32(self._view(block, min(block + _BLOCK, end)), checksum)
        return checksum

    @cached_property
    def _bytes(self) -> memoryview:
        return torch.tensor([], dtype=torch.uint8).set_(self.mapped).numpy().data

    def _view(self, start: int, end: int) -> memoryview:
        return self._bytes[start:end]
