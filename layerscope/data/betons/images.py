"""The images of ``.beton`` files, by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from layerscope.data.betons.beton import Beton
from layerscope.data.decoding import unreadable
from layerscope.data.images import select_missing
from layerscope.data.resampling import Pixels


@dataclass(frozen=True, slots=True)
class BetonImages:
    """Rows of one file, or of several.

    Args:
        files: The files.
        file: (n,) which of them each row is in.
        row: (n,) its row in there.
        names: (n,) what the images were called before they were packed; none for files of others.
        missing: By row, of images that could not be read when they were packed: what was wrong.
    """

    files: tuple[Beton, ...]
    file: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    names: Sequence[str] = ()
    missing: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def whole(
        cls, *files: Beton, names: Sequence[str] = (), missing: Mapping[int, str] | None = None
    ) -> BetonImages:
        """Return every row of some files, one file after the other."""
        lengths = [file.samples for file in files]
        numbers = np.repeat(np.arange(len(files)), lengths)
        rows = np.concatenate([np.arange(length) for length in lengths])
        return cls(files, numbers, rows, names, missing or {})

    @property
    def path(self) -> Path:
        """The first file's."""
        return self.files[0].path

    def read(self, row: int) -> bytes | Pixels:
        if row in self.missing:
            raise unreadable(self.place(row), self.missing[row])
        file: Beton = self.files[self.file[row]]
        return file.read(int(self.row[row]))

    def place(self, row: int) -> str:
        path = self.files[self.file[row]].path
        return f"{path}, {self.names[row] if self.names else f'row {self.row[row]}'}"

    def select(self, rows: npt.NDArray[np.int64]) -> BetonImages:
        return BetonImages(
            self.files,
            self.file[rows],
            self.row[rows],
            tuple(self.names[row] for row in rows) if self.names else (),
            select_missing(self.missing, rows),
        )
