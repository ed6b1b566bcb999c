"""ReadError: why a log cannot be read."""

__all__ = ["ReadError"]


class ReadError(ValueError):
    """A log cannot be read, or holds no gradient norms. The message names the file, the cause and the remedy."""
