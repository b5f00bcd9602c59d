"""A small cache's header and features, made without images or a network."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from layerscope.cache import CacheWriter, Header, ingredients
from layerscope.nouns import Checkpoint, CutPoint, Preprocessing, Source, Task

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


def make_header(sha256: str = "a" * 64, precision: str = "float32", rows: int = ROWS) -> Header:
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
    )
    return Header(checkpoint, CUTS, source, parts, {"device": "cpu"})


def make_features(rows: int = ROWS) -> dict[str, np.ndarray]:
    """Every number tells its row, its column and its cut."""
    return {
        cut.key: (1000 * cut.index + np.arange(rows)[:, None] + np.arange(cut.width) / 16).astype(
            np.float32
        )
        for cut in CUTS
    }


def write_rows(writer: CacheWriter, stop: int, batch: int = 4) -> None:
    features = make_features()
    while writer.rows_done < stop:
        rows = slice(writer.rows_done, min(writer.rows_done + batch, stop))
        part = {name: values[rows] for name, values in features.items()}
        writer.write(part, np.ones(rows.stop - rows.start, dtype=bool))


HOLDER = """
import sys, h5py
with h5py.File(sys.argv[1], "r+"):
    sys.stdout.write("open\\n"), sys.stdout.flush(), sys.stdin.read()
"""


@contextmanager
def hold_open(path: Path) -> Iterator[None]:
    """Let another process hold a file open for writing; one process may open it twice."""
    child = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"open\n"
        yield
        process.communicate()


@pytest.fixture
def held() -> Callable[[Path], AbstractContextManager[None]]:
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
