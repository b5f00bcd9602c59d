"""Protocols: which rows of a layer train, how they are seen, and what tells artefacts apart.

An :class:`Arrangement` names one way; :func:`arranged` is the layer as estimators then see it.
"""

from __future__ import annotations

from layerscope.protocol.arrangement import Arrangement, arranged, arrangements
from layerscope.protocol.folds import joined

__all__ = ["Arrangement", "arranged", "arrangements", "joined"]
