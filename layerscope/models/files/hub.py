"""Checkpoints on the Hugging Face hub: ``hf://owner/repository/path/file``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from layerscope.errors import CheckpointError
from layerscope.models.files.beside import NAMES
from layerscope.models.files.pickles import Malformed
from layerscope.models.files.shards import INDEX, shards_of

SCHEME = "hf://"

_FORM = "hf://owner/repository/file, or hf://owner/repository@revision/file"


def fetch_from_hub(name: str) -> Path:
    """Return where a file of the hub lies on this machine, once it has been fetched.

    What explains the weights is fetched with them: the JSON files of the same folder, and all
    files of an index.

    Args:
        name: ``hf://owner/repository/path/file``; the repository may end in ``@revision``.

    Raises:
        CheckpointError: The name is incomplete, or the file could not be fetched.
    """
    repository, revision, file = _parsed(name)
    path = _fetched(repository, revision, file, name)
    more: tuple[str, ...] = NAMES
    if path is not None and path.name.endswith(INDEX):
        try:
            more = (*NAMES, *shards_of(path))
        except Malformed as error:
            raise CheckpointError(
                f"The checkpoint {name!r} {error.phrase}.", hint=error.hint
            ) from error
    if path is None:
        raise CheckpointError(
            f"There is no file {str(file)!r} in {repository!r} on the hub.",
            hint="Look up the file's name on the repository's page.",
        )
    for other in more:
        found = _fetched(repository, revision, file.with_name(other), name)
        if found is None and other not in NAMES:
            raise CheckpointError(
                f"The checkpoint {name!r} lacks its file {other!r}.",
                hint="The repository is incomplete; choose another.",
            )
    return path


def _parsed(name: str) -> tuple[str, str | None, PurePosixPath]:
    owner, _, rest = name.removeprefix(SCHEME).partition("/")
    repository, _, file = rest.partition("/")
    repository, _, revision = repository.partition("@")
    if not (owner and repository and file) or ".." in PurePosixPath(file).parts:
        raise CheckpointError(f"{name!r} names no file on the hub.", hint=f"Write {_FORM}.")
    return f"{owner}/{repository}", revision or None, PurePosixPath(file)


def _fetched(repository: str, revision: str | None, file: PurePosixPath, name: str) -> Path | None:
    """Return the path of a file, or None where the repository has none of that name."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(repository, str(file), revision=revision))
    except Exception as error:
        # The library raises kinds that share no class of their own, and differ by its version.
        absent = isinstance(error, EntryNotFoundError)
        if absent and not isinstance(error, LocalEntryNotFoundError):
            return None
        reason = str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__
        raise CheckpointError(
            f"The checkpoint {name!r} could not be fetched: {reason}.",
            hint="Check the name and the network, or download the file and give its path.",
        ) from error
