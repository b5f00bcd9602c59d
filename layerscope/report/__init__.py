"""Reports: figures, tables and one page, drawn from what results and verdicts say."""

from layerscope.report.folder import Report, write_report

__all__ = ["Report", "write_report"]
