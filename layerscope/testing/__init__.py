"""Conformance checks for whoever adds a piece of their own."""

from layerscope.testing.estimators import check_estimator
from layerscope.testing.families import TOLERANCE, FamilyExample, check_capture, check_family
from layerscope.testing.findings import collect
from layerscope.testing.layers import HeldLayer, planted_layer
from layerscope.testing.methods import check_method
from layerscope.testing.tasks import TaskExample, TaskRow, check_source

__all__ = [
    "TOLERANCE",
    "FamilyExample",
    "HeldLayer",
    "TaskExample",
    "TaskRow",
    "check_capture",
    "check_estimator",
    "check_family",
    "check_method",
    "check_source",
    "collect",
    "planted_layer",
]
