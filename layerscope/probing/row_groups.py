"""Rows that share a group are not independent: they are drawn and shuffled together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class RowGroups:
    """The groups of some rows, numbered as they come."""

    first: npt.NDArray[np.int64]
    """(groups,) the first row of each."""
    of_row: npt.NDArray[np.int64]
    """(n,) the number of each row's group."""

    @classmethod
    def of(cls, names: npt.NDArray[Any]) -> RowGroups:
        """Return the groups of rows by their (n,) names.

        Examples:
            >>> RowGroups.of(np.array(["b", "a", "b"]))
            RowGroups(first=array([0, 1]), of_row=array([0, 1, 0]))
        """
        _, first, named = np.unique(names, return_index=True, return_inverse=True)
        number = np.empty(len(first), np.int64)
        number[np.argsort(first)] = np.arange(len(first))
        return cls(np.sort(first), number[named.ravel()])

    def __len__(self) -> int:
        return len(self.first)

    def share(self, target: npt.NDArray[Any]) -> bool:
        """Return whether all rows of every group have the same target, of (n, ...)."""
        return np.array_equal(target[self.first][self.of_row], target, equal_nan=True)
