"""A small cache's header and features, made without images or a network."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from layerscope.cache import AssignmentWriter, CacheWriter, Header, ingredients
from layerscope.types import Checkpoint, CutPoint, Preprocessing, Source, Storage, Task

ROWS = 21
CUTS = (
    CutPoint(0, "layer1.0", "trunk.layer1.0", "trunk", 3, "mean", 0.0),
    CutPoint(1, "trunk", "trunk.avgpool", "trunk", 5, "mean", 0.5),
    CutPoint(2, "head.1", "head.1", "head", 4, "none", 1.0),
)
KIND = Task("toy-kind", "toy", "classes", "top-1", "maximise", classes=("cup", "mug"))
POSE = Task("toy-pose", "toy", "latents", "mse", "minimise", encoding="raw", unit="rad")


def make_source(rows: int = ROWS) -> Source:
    index = np.arange(rows)
    return Source(
        name="toy",
        ids=tuple(f"images/größe {i}.png" for i in index),
        splits=np.array(["train", "val", "test"])[index % 3],
        groups=np.array([f"object{i // 2}" for i in index]),
        tasks=(KIND, POSE),
        targets={"toy-kind": index % 2, "toy-pose": np.stack((index / 7, -index / 3), axis=1)},
        manifest="m" * 64,
        annotations="a" * 64,
        root=Path("/nowhere"),
    )


def make_header(
    sha256: str = "a" * 64,
    precision: str = "float32",
    rows: int = ROWS,
    storage: Storage = "float16",
) -> Header:
    checkpoint = Checkpoint(
        name="net",
        family="toy",
        architecture={"widths": (3, 5, 4), "act": "relu"},
        weights=Path("/secret/place/net.pt"),
        sha256=sha256,
        preprocessing=Preprocessing((8, 9), None, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
        head="1 layer",
        licence="CC0",
        citation="",
    )
    source = make_source(rows)
    parts = ingredients(
        checkpoint,
        CUTS,
        source,
        checkpoint.preprocessing,
        decoder="pillow",
        precision=precision,
        storage=storage,
    )
    return Header(checkpoint, CUTS, source, parts, {"device": "cpu"})


def make_features(rows: int = ROWS) -> dict[str, np.ndarray]:
    """Every number tells its row, its column and its cut, and is a float16."""
    return {
        cut.key: (512 * cut.index + 8 * np.arange(rows)[:, None] + np.arange(cut.width)).astype(
            np.float32
        )
        for cut in CUTS
    }


def write_rows(writer: CacheWriter | AssignmentWriter, stop: int = ROWS, batch: int = 4) -> None:
    """Write those rows below ``stop`` that are missing."""
    features = make_features()
    missing = writer.missing if isinstance(writer, CacheWriter) else writer.rows
    left = missing[missing < stop]
    for start in range(0, len(left), batch):
        rows = left[start : start + batch]
        part = {name: values[rows] for name, values in features.items()}
        writer.write(rows, part, np.ones(len(rows), dtype=bool))


HOLDER = """
import sys
from pathlib import Path
from layerscope.cache.lock import Lock
with Lock(Path(sys.argv[1])):
    sys.stdout.write("held\\n"), sys.stdout.flush(), sys.stdin.read()
"""


@contextmanager
def hold_open(path: Path) -> Iterator[int]:
    """Let another process write a cache; its number is given."""
    child = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.communicate()


@pytest.fixture
def held() -> Callable[[Path], AbstractContextManager[int]]:
    return hold_open


@pytest.fixture
def header() -> Header:
    return make_header()


@pytest.fixture
def features() -> dict[str, np.ndarray]:
    return make_features()


@pytest.fixture
def headers() -> Callable[..., Header]:
    return make_header


@pytest.fixture
def fill() -> Callable[..., None]:
    return write_rows


@pytest.fixture
def complete(tmp_path: Path, header: Header) -> Path:
    with CacheWriter(tmp_path / "net@toy.h5", header) as writer:
        write_rows(writer, ROWS)
        return writer.finish()
