"""Memory for batches, used again as soon as nobody holds the last one that lay in it.

A fresh batch of 64 images takes 40 MB of new pages, and to have them zeroed by the system costs a
tenth of what decoding costs. A ring that is simply written over is the usual remedy, and the usual
trap: a batch that was kept changes under its keeper.
"""

from __future__ import annotations

import weakref

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8 | np.float32]


class Buffers:
    """Lends arrays, and takes each back when the last reference to it is gone.

    Examples:
        >>> buffers = Buffers()
        >>> first = buffers.take((2, 2), np.uint8)
        >>> kept = first.ctypes.data
        >>> buffers.take((2, 2), np.uint8).ctypes.data == kept
        False
        >>> del first
        >>> buffers.take((2, 2), np.uint8).ctypes.data == kept
        True
    """

    def __init__(self) -> None:
        self._lent: list[tuple[Array, weakref.ref[Array]]] = []

    def take(self, shape: tuple[int, ...], kind: type[np.uint8] | type[np.float32]) -> Array:
        """Return an array with any contents.

        It must be handed on as itself, to ``torch.from_numpy`` say: views that NumPy makes of it
        refer to the memory behind it and would not keep it lent.
        """
        for place, (owner, loan) in enumerate(self._lent):
            if loan() is None and owner.shape == shape and owner.dtype == kind:
                lent = owner[...]
                self._lent[place] = (owner, weakref.ref(lent))
                return lent
        self._lent = [(owner, loan) for owner, loan in self._lent if loan() is not None]
        owner = np.empty(shape, kind)
        lent = owner[...]
        self._lent.append((owner, weakref.ref(lent)))
        return lent
