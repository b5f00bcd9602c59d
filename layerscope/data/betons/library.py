"""FFCV itself: loaded when it is asked for, and kept from changing what is not its own.

``import ffcv`` sets torch and numba to one thread, and every loader of it sets them to its number
of workers; making a loader draws from NumPy's global generator unless it is given a seed, and
marks one of numba's own types as read-only.
"""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numba
import torch

from layerscope.errors import SettingsError

_INSTALL = (
    "In LayerScope's folder: make ffcv. Elsewhere: apt-get install g++ pkg-config libopencv-dev "
    'libturbojpeg0-dev, then pip install "layerscope[ffcv]". Without it --loader threads reads '
    "the same files."
)


class Library(NamedTuple):
    """What is used of FFCV, by :func:`_load`."""

    loader: Any
    iterator: Any
    """The thread that runs a loader's pipelines."""
    compiler: Any
    pipeline: Any
    allocation: Any
    integers: Any
    sequential: Any
    decode: int
    """The address of the C function ``imdecode``."""


@functools.cache
def library() -> Library:
    """Return FFCV.

    Raises:
        SettingsError: It is not installed, or cannot be loaded.
    """
    try:
        with undisturbed():
            return _load()
    except ModuleNotFoundError as error:
        name = (error.name or "ffcv").partition(".")[0]
        raise SettingsError(
            f"The loader ffcv needs the Python package {name}, which is not installed.",
            hint=_INSTALL if name == "ffcv" else _install_hint(name),
        ) from error
    except (ImportError, OSError) as error:  # a system library that is not there, or another one
        raise SettingsError(f"The loader ffcv cannot be loaded: {error}.", hint=_INSTALL) from error


def _load() -> Library:
    from ffcv.fields.decoders import IntDecoder
    from ffcv.libffcv import ctypes_imdecode
    from ffcv.loader import Loader
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.loader.loader import OrderOption
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.pipeline_spec import PipelineSpec

    address = ctypes.cast(ctypes_imdecode, ctypes.c_void_p).value
    assert address is not None
    return Library(
        loader=Loader,
        iterator=EpochIterator,
        compiler=Compiler,
        pipeline=PipelineSpec,
        allocation=AllocationQuery,
        integers=IntDecoder,
        sequential=OrderOption.SEQUENTIAL,
        decode=address,
    )


def _install_hint(name: str) -> str:
    # FFCV does not declare Pillow, and imports distutils, which Python 3.12 left to setuptools.
    package = {"distutils": "setuptools", "PIL": "pillow", "cv2": "opencv-python"}.get(name, name)
    return f"FFCV imports it: pip install {package}. Without it --loader threads does the same."


@contextmanager
def undisturbed() -> Iterator[None]:
    """Undo on leaving what FFCV does to torch, numba and the warnings."""
    bytes_in_a_row = numba.types.uint8[::1]
    threads, compiled_threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        numba.set_num_threads(compiled_threads)
        bytes_in_a_row.mutable = True
