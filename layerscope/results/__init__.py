"""Results: what probing and evaluating found, kept in one folder and read back as tables."""

from layerscope.results.store import Results, open_results

__all__ = ["Results", "open_results"]
