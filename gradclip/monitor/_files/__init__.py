"""Readers of logs that people have: one format a file. `read` recognises the format by the content."""

from gradclip.monitor._files._error import ReadError
from gradclip.monitor._files._follow import Follow
from gradclip.monitor._files._read import read

__all__ = ["Follow", "ReadError", "read"]
