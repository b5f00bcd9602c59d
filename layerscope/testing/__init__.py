"""Conformance checks for whoever adds a piece of their own."""

from layerscope.testing.families import TOLERANCE, FamilyExample, check_capture, check_family
from layerscope.testing.tasks import TaskExample, TaskRow, check_source

__all__ = [
    "TOLERANCE",
    "FamilyExample",
    "TaskExample",
    "TaskRow",
    "check_capture",
    "check_family",
    "check_source",
]
