"""Reading a file of weights: plain tensors only, and no code of anybody's is ever run."""

from __future__ import annotations

import hashlib
import pickletools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerscope.errors import CheckpointError
from layerscope.models.contents import Contents
from layerscope.models.files.archives import read_archive
from layerscope.models.files.beside import read_beside
from layerscope.models.files.legacy import read_legacy
from layerscope.models.files.pickles import Malformed
from layerscope.models.files.shards import (
    INDEX,
    is_safetensors,
    merge_shards,
    read_safetensors,
    shards_of,
)

SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".bin", ".safetensors", INDEX)
"""How the names of checkpoints usually end; what a file is, its first bytes tell."""

_BLOCK = 1 << 20
_HEAD = 512
_SHOWN = 8
_SHORTEST = 16

_CONVERT = "Convert it with the program that wrote it: save a state dict as safetensors."
_UNPACK = "Unpack it and give the checkpoint inside."
_FOREIGN = {
    b"\x1f\x8b": ("is compressed with gzip", _UNPACK),
    b"BZh": ("is compressed with bzip2", _UNPACK),
    b"\xfd7zXZ": ("is compressed with xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("is compressed with zstd", _UNPACK),
    b"7z\xbc\xaf": ("is an archive of 7-Zip", _UNPACK),
    b"\x89HDF": ("is an HDF5 file, such as Keras writes", _CONVERT),
    b"\x93NUMPY": ("is a NumPy array", _CONVERT),
    b"GGUF": ("is a GGUF file of quantised weights", _CONVERT),
    b"\x08": ("is a protocol buffer, such as an ONNX model", _CONVERT),
    b"version https://git-lfs": (
        "is a pointer of Git LFS and not the weights themselves",
        "Fetch them: git lfs pull.",
    ),
}
_TAR_AT, _TAR = 257, b"ustar"


def read_contents(path: Path, *, trust: Sequence[str] = ()) -> Contents:
    """Return the nested tables of tensors of a checkpoint file, and the plain values beside them.

    Args:
        path: A file of any of the known containers.
        trust: Dotted names of Python objects that a pickle may mention; they become inert records.

    Raises:
        CheckpointError: The file is missing, empty, damaged, or holds code.
    """
    _require_file(path)
    try:
        root = _read(path, trust)
        if not isinstance(root, Mapping):
            raise Malformed(
                f"holds {_describe(root)} and no table of tensors",
                hint="Save a state dict: torch.save(model.state_dict(), FILE).",
            )
    except Malformed as error:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} {error.phrase}.", hint=error.hint
        ) from error
    return Contents(root, path.name, read_beside(path), path)


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes, and of those of all files of an index."""
    digest = hashlib.sha256()
    files = [path]
    if path.name.endswith(INDEX):
        files += [path.with_name(shard) for shard in sorted(shards_of(path))]
    for each in files:
        with each.open("rb") as file:
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


def _require_file(path: Path) -> None:
    if path.is_dir():
        found = sorted(file.name for file in path.iterdir() if file.name.endswith(SUFFIXES))
        held = f"with {', '.join(found[:_SHOWN])}" if found else "without any"
        raise CheckpointError(
            f"{str(path)!r} is a folder {held}, and no checkpoint file.",
            hint=f"Give one file: {path / found[0]}." if found else "Give the path of a file.",
        )
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint file {str(path)!r}.",
            hint="Check the path, or name a card that `layerscope list checkpoints` shows.",
        )
    if path.stat().st_size == 0:
        raise CheckpointError(f"The checkpoint {str(path)!r} is empty.", hint="Download it again.")


def _read(path: Path, trust: Sequence[str]) -> Any:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"PK"):
        return read_archive(path, trust)
    if path.name.endswith(INDEX) and head.startswith(b"{"):
        return _read_shards(path, trust)
    if is_safetensors(head):
        return read_safetensors(path)
    _refuse_foreign(head)
    if head.startswith(b"\x80") or _is_old_pickle(head):
        return read_legacy(path, trust)
    raise _unknown_kind(head)


def _read_shards(path: Path, trust: Sequence[str]) -> dict[str, Tensor]:
    shards: dict[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {}
    for shard, names in shards_of(path).items():
        file = path.with_name(shard)
        if not file.is_file():
            raise Malformed(
                f"is an index, and its file {shard!r} is missing",
                hint="Download all of its files into one folder.",
            )
        held = _read(file, trust)
        if not isinstance(held, Mapping):
            raise Malformed(f"is an index, and its file {shard!r} holds no table")
        shards[shard] = held, names
    return merge_shards(shards)


def _is_old_pickle(head: bytes) -> bool:
    """Return whether a file begins with a pickle of protocol 0 or 1, which has no mark."""
    seen = 0
    try:
        for seen, (opcode, _, _) in enumerate(pickletools.genops(head), 1):
            if opcode.name == "STOP":
                return seen > 1
    except ValueError:
        # The first bytes may end amid an operation; text fails at once.
        pass
    return seen > _SHOWN


def _refuse_foreign(head: bytes) -> None:
    for start, (phrase, hint) in _FOREIGN.items():
        if head.startswith(start):
            raise Malformed(phrase, hint)
    if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        raise Malformed("is a tar archive", hint=_UNPACK)


def _unknown_kind(head: bytes) -> Malformed:
    if len(head) < _SHORTEST:
        return Malformed(f"is damaged or truncated: it has {len(head)} bytes")
    text = head.decode("utf-8", "ignore").strip()
    if text.startswith("<"):
        return Malformed(
            f"is a page of a website and not weights: it begins {text[:40]!a}",
            hint="Download the file itself; the page may say why it was not sent.",
        )
    if len(text) > len(head) * 0.9 and text.replace("\n", "").replace("\t", "").isprintable():
        return Malformed(
            f"is text and not weights: it begins {text[:40]!a}",
            hint="Give the file of weights that belongs to it.",
        )
    return Malformed(
        "is no checkpoint of a known kind",
        hint="Give a file of torch.save, safetensors or TorchScript.",
    )


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return "one tensor"
    return f"a {type(value).__name__}"
