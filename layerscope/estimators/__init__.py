"""Estimators: what a cut is worth for a task, computed from one layer's features alone.

One file each; an estimator registers a function of the seed that makes it, which is usually its
class. Other distributions add theirs through the entry-point group ``layerscope.estimators``.
"""

from __future__ import annotations

from collections.abc import Callable

from layerscope.registry import Registry
from layerscope.types import Estimator

estimators: Registry[Callable[[int], Estimator]] = Registry(
    "estimator", package="layerscope.estimators", group="layerscope.estimators"
)
"""By name: makes the estimator from the seed of its resamples."""

__all__ = ["estimators"]
