"""What all tests share: what they need and a machine may lack is left out, aloud, where it does."""

import os
import sys

import pytest

from layerscope.registry import PLUGINS

FFCV_REQUIRED = "LAYERSCOPE_REQUIRE_FFCV"
"""Set in the environment where a test that needs FFCV must not be left out."""


def share_processors():
    """Have torch in a worker of pytest-xdist, and in what it starts, take its share of threads.

    Otherwise each of the workers starts a thread for every processor, and they wait for one
    another. They are bound to no processor: FFCV waits for ever where it may use fewer processors
    than it was asked for threads.
    """
    workers = os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if workers is not None:
        share = max(1, (os.cpu_count() or 1) // int(workers))
        os.environ.setdefault("OMP_NUM_THREADS", str(share))


# Before anything imports torch, which reads it once.
share_processors()


def pytest_collection_modifyitems(items):
    on_gpu = [item for item in items if "gpu" in item.keywords]
    if not on_gpu or _has_gpu():
        return
    for item in on_gpu:
        item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


def _has_gpu():
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Have fixtures of any scope draw the same numbers, whatever ran before."""
    _seed_torch()


@pytest.fixture(autouse=True)
def alone():
    """Begin and leave every test with torch as it would be if no other test ran."""
    _seed_torch()
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    yield
    # A command may have taken others for the whole process.
    if torch and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _seed_torch():
    torch = sys.modules.get("torch")
    if torch:
        torch.manual_seed(0)


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Return what runs ``layerscope`` with words and returns its exit code, output and talk."""
    from layerscope.cli.main import main

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["layerscope", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    return run


@pytest.fixture(autouse=True)
def no_worker_loads_another_tests_plugin(monkeypatch):
    monkeypatch.setenv(PLUGINS, "[]")


@pytest.fixture(scope="session")
def ffcv():
    """What is used of FFCV."""
    from layerscope.data.betons.library import library
    from layerscope.errors import SettingsError

    try:
        return library()
    except SettingsError as error:
        if os.environ.get(FFCV_REQUIRED):
            raise
        pytest.skip(f"{error.message} (set {FFCV_REQUIRED} to have this fail)")
