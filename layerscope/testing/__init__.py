"""Conformance checks for whoever adds a piece of their own."""

from layerscope.testing.families import FamilyExample, check_capture, check_family
from layerscope.testing.tasks import TaskExample, check_source

__all__ = ["FamilyExample", "TaskExample", "check_capture", "check_family", "check_source"]
