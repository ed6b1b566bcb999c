"""Gradient norms over time: read them from logs, and choose ``max_norm`` from them."""

from gradclip.monitor._files import ReadError, read
from gradclip.monitor._history import History
from gradclip.monitor._suggest import Suggestion, suggest

__all__ = ["History", "ReadError", "Suggestion", "read", "suggest"]
