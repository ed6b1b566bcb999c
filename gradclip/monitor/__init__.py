"""Gradient norms over time: collect them, summarise them, and choose ``max_norm`` from them."""

from gradclip.monitor._history import History
from gradclip.monitor._suggest import Suggestion, suggest
from gradclip.monitor._summary import Spike, Summary, summary

__all__ = ["History", "Spike", "Suggestion", "Summary", "suggest", "summary"]
