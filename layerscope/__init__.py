"""LayerScope: at which layer to cut a pretrained vision network, and how sure one can be.

The whole public surface. Names load on first use, so that importing the package is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from layerscope.version import __version__ as __version__

if TYPE_CHECKING:
    from layerscope.cache import open_cache as open_cache
    from layerscope.cache import open_statistics as open_statistics
    from layerscope.data import open_source as open_source
    from layerscope.errors import LayerScopeError as LayerScopeError
    from layerscope.extraction.extract import extract as extract_features
    from layerscope.extraction.extract import plan as plan_extraction
    from layerscope.extraction.settings import ExtractSettings as ExtractSettings
    from layerscope.models import load as load
    from layerscope.probing import sweep as sweep_caches
    from layerscope.render import RenderSettings as RenderSettings
    from layerscope.render import render_dataset as render_dataset
    from layerscope.report import write_report as write_report
    from layerscope.results import open_results as open_results
    from layerscope.training import Recipe as Recipe
    from layerscope.training import pretrain as pretrain_network
    from layerscope.types import Checkpoint as Checkpoint
    from layerscope.types import CutPoint as CutPoint
    from layerscope.types import Score as Score
    from layerscope.types import Source as Source
    from layerscope.types import Task as Task
    from layerscope.types import Verdict as Verdict

__all__ = [
    "Checkpoint",
    "CutPoint",
    "ExtractSettings",
    "LayerScopeError",
    "Recipe",
    "RenderSettings",
    "Score",
    "Source",
    "Task",
    "Verdict",
    "__version__",
    "extract_features",
    "load",
    "open_cache",
    "open_results",
    "open_source",
    "open_statistics",
    "plan_extraction",
    "pretrain_network",
    "render_dataset",
    "sweep_caches",
    "write_report",
]

# A verb and the module that it lives in share a name, so the verbs carry their object here.
_HOMES = {
    "Checkpoint": ("types", "Checkpoint"),
    "CutPoint": ("types", "CutPoint"),
    "ExtractSettings": ("extraction.settings", "ExtractSettings"),
    "LayerScopeError": ("errors", "LayerScopeError"),
    "Recipe": ("training", "Recipe"),
    "RenderSettings": ("render", "RenderSettings"),
    "Score": ("types", "Score"),
    "Source": ("types", "Source"),
    "Task": ("types", "Task"),
    "Verdict": ("types", "Verdict"),
    "extract_features": ("extraction.extract", "extract"),
    "load": ("models", "load"),
    "open_cache": ("cache", "open_cache"),
    "open_results": ("results", "open_results"),
    "open_source": ("data", "open_source"),
    "open_statistics": ("cache", "open_statistics"),
    "plan_extraction": ("extraction.extract", "plan"),
    "pretrain_network": ("training", "pretrain"),
    "render_dataset": ("render", "render_dataset"),
    "sweep_caches": ("probing", "sweep"),
    "write_report": ("report", "write_report"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'layerscope' has no attribute {name!r}")
    home, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"layerscope.{home}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
