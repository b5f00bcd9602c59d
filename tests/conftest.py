"""What all tests share: what they need and a machine may lack is left out, aloud, where it does."""

import os

import pytest
import torch

from layerscope.data.betons.library import library
from layerscope.errors import SettingsError
from layerscope.registry import PLUGINS

FFCV_REQUIRED = "LAYERSCOPE_REQUIRE_FFCV"
"""Set in the environment where a test that needs FFCV must not be left out."""


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture(autouse=True)
def no_worker_loads_another_tests_plugin(monkeypatch):
    monkeypatch.setenv(PLUGINS, "[]")


@pytest.fixture(scope="session")
def ffcv():
    """What is used of FFCV."""
    try:
        return library()
    except SettingsError as error:
        if os.environ.get(FFCV_REQUIRED):
            raise
        pytest.skip(f"{error.message} (set {FFCV_REQUIRED} to have this fail)")
