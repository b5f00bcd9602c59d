"""The long table that reports are drawn from."""

from tests.report.conftest import fail, scores

__all__ = ["fail", "scores"]
