"""The evaluation as people read it: one HTML page that needs nothing else, console tables, one line to grep."""

from whisper_ft.reports.evaluation.alignment import worst
from whisper_ft.reports.evaluation.console import comparison_table, table, tables, wer_line
from whisper_ft.reports.evaluation.page import write_report
from whisper_ft.reports.evaluation.utterances import SHOWN_ROWS

__all__ = ["SHOWN_ROWS", "comparison_table", "table", "tables", "wer_line", "worst", "write_report"]
