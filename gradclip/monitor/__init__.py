"""Gradient norms over time: collect them, read them from logs, summarise them, and choose ``max_norm`` from them."""

from gradclip.monitor._files import ReadError, read
from gradclip.monitor._histogram import LogHistogram
from gradclip.monitor._history import History
from gradclip.monitor._monitor import NormMonitor
from gradclip.monitor._suggest import Suggestion, suggest
from gradclip.monitor._summary import Spike, Summary, summary

__all__ = [
    "History",
    "LogHistogram",
    "NormMonitor",
    "ReadError",
    "Spike",
    "Suggestion",
    "Summary",
    "read",
    "suggest",
    "summary",
]
