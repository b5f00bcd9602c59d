"""Everything that is audited; a new file of definitions is named here."""

from __future__ import annotations

from tests.audit import measures, probes
from tests.audit.table import AUDITED, Audited, worst

FILES = (measures, probes)
"""Importing one enters its definitions."""

__all__ = ["AUDITED", "FILES", "Audited", "worst"]
