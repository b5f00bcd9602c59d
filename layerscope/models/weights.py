"""Reading a file of weights: plain tensors only, and no code of anybody's is ever run."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from layerscope.errors import CheckpointError

_BLOCK = 1 << 20


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict, by key.

    Args:
        path: ``.safetensors``, or a ``.pth``/``.pt`` file of plain tensors.

    Raises:
        CheckpointError: The file is missing, empty, truncated, holds code, or holds no state dict.
    """
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint file {str(path)!r}.",
            hint="Check the path, or name a card that `layerscope list checkpoints` shows.",
        )
    if path.stat().st_size == 0:
        raise CheckpointError(f"The checkpoint {str(path)!r} is empty.", hint="Download it again.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _state_dict(_read_pickle(path), path)


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the hexadecimal sha256 of tensors' names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} is damaged or truncated: {error}.",
            hint="Download or write it again.",
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # A protocol that torch does not know well is either read right or raises.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path) from error
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} is damaged or truncated: {_first_line(error)}",
            hint="Download or write it again.",
        ) from error


def _refusal(path: Path) -> CheckpointError:
    names = _blocked(path)
    if not names:
        return CheckpointError(
            f"The checkpoint {str(path)!r} is not a file of plain tensors.",
            hint="Give a safetensors file or a state dict saved with torch.save.",
        )
    return CheckpointError(
        f"The checkpoint {str(path)!r} holds code beyond plain tensors: {', '.join(names)}.",
        hint="It was not run. Where you trust the file, save its state dict alone and use that.",
    )


def _blocked(path: Path) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile):
        return []


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".") + "."


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping) and loaded:
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
        if len(tensors) == len(loaded):
            return tensors
    kind = sorted(map(str, loaded))[:5] if isinstance(loaded, Mapping) else type(loaded).__name__
    raise CheckpointError(
        f"The checkpoint {str(path)!r} is not a plain state dict; it holds {kind}.",
        hint="Save the state dict itself: torch.save(network.state_dict(), path).",
    )
