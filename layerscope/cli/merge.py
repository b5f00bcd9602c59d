"""``layerscope merge``: one file of a cache whose features lie in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerscope.cli import terminal
from layerscope.cli.options import Json


def command(
    caches: Annotated[
        list[Path], typer.Argument(metavar="CACHE...", help="Caches, or folders of caches.")
    ],
    keep_shards: Annotated[
        bool, typer.Option("--keep-shards", help="Do not delete the shards afterwards.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make one file of a cache that several processes have written, a shard each.

    Each row is compared with its checksum on the way. The shards are deleted once the file is
    whole, and until then the cache can be read as before. If the command is killed, repeating it
    goes on where it stopped. In a folder, caches that are one file already are left alone.

    \b
    Examples:
      layerscope merge features/vit@in1k.h5
      layerscope merge features/ --keep-shards
    """
    from layerscope.cache import find_caches, merge, open_cache

    rows = []
    for given in caches:
        for path in find_caches(given):
            with open_cache(path) as cache:
                label, count, shards = str(path), cache.rows, len(cache.shards)
            status = "one file already"
            if shards or not given.is_dir():
                with terminal.progress(f"merge {label}", count, "images") as advance:
                    merge(path, keep_shards=keep_shards, progress=advance)
                status = "merged"
            rows.append({"path": label, "images": count, "shards": shards, "status": status})
    header = ("path", "images", "shards", "status")
    lines = [tuple(f"{row[name]}" for name in header) for row in rows]
    terminal.emit({"caches": rows}, as_json, lambda: terminal.table(header, lines, right=(1, 2)))
