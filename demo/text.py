"""The text that the demo learns: codes of characters, cut into the rows of a batch."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from demo.checks import RefusedError
from demo.style import counted

Codes: TypeAlias = NDArray[np.intp]

LARGEST_VOCABULARY = 256
"""The most characters of a vocabulary, because the output layer takes time for each. Rare ones are left out."""

RARE = "\ufffd"
"""The character that replaces those which the vocabulary leaves out."""


@dataclass(frozen=True)
class Corpus:
    """A text as numbers.

    Parameters
    ----------
    source : str
        A description of where the text is from.
    characters : str
        The vocabulary: the character of code ``i`` is ``characters[i]``.
    codes : array of intp, shape (number of characters in the text,)
    """

    source: str
    characters: str
    codes: Codes

    def encode(self, text: str) -> list[int]:
        """Return the codes of ``text``, without the characters that the corpus does not have."""
        return [self.characters.index(character) for character in text if character in self.characters]

    def decode(self, codes: Iterable[int]) -> str:
        """Return the text that ``codes`` stand for."""
        return "".join(self.characters[code] for code in codes)


class Batch(NamedTuple):
    """A piece of the text for each row; the targets are the inputs one character later.

    ``inputs`` and ``targets`` have shape (length, rows). ``first`` marks the start of a pass through the text, where
    the hidden state is reset. Otherwise each row continues where the last batch ended.
    """

    inputs: Codes
    targets: Codes
    first: bool


def read_corpus(path: Path | None, shortest: int) -> Corpus:
    """Return the text of a file, or Python's own documentation if there is none.

    Parameters
    ----------
    path : Path or None
        A text file in UTF-8.
    shortest : int
        The number of characters of one batch.

    Raises
    ------
    RefusedError
        If the file cannot be read as text, or is too short or too uniform to learn from.
    """
    if path is None:
        from pydoc_data.topics import topics

        return _corpus("Python's documentation (pydoc_data.topics)", "\n".join(topics.values()))
    text = _read_file(path)
    if not text.strip():
        raise RefusedError(f"--text {path} is empty; expected at least {shortest:,} characters. {_REMEDY}")
    if len(text) < shortest:
        raise RefusedError(
            f"--text {path} has {counted(len(text), 'character')}; expected at least {shortest:,}. {_REMEDY}"
        )
    if len(set(text)) == 1:
        raise RefusedError(f"--text {path} repeats one character, {text[0]!r}; there is nothing to learn. {_REMEDY}")
    return _corpus(str(path), text)


def batches(codes: Codes, rows: int, length: int, start: int) -> Iterator[Batch]:
    """Yield batches without end: the text is cut into ``rows`` parallel rows, which are read again and again.

    The first pass begins ``start`` characters into each row (modulo a row), the later ones at 0.
    """
    width = len(codes) // rows
    grid = codes[: rows * width].reshape(rows, width)
    column, first = start % (width - length), True
    while True:
        window = grid[:, column : column + length + 1].T
        yield Batch(window[:-1], window[1:], first)
        column, first = column + length, False
        if column + length >= width:
            column, first = 0, True


_REMEDY = "Give a longer text in UTF-8, or leave --text out for Python's own documentation."


def _read_file(path: Path) -> str:
    """Return a file's text, or raise an error that says why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RefusedError(f"--text {path}: there is no such file. Check the path, or leave --text out.") from None
    except IsADirectoryError:
        raise RefusedError(f"--text {path} is a folder; expected a text file. Name a file in it.") from None
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at position {error.start:,}"
        raise RefusedError(f"--text {path} is not text in UTF-8 ({byte}). Convert it, or name another file.") from None
    except OSError as error:
        raise RefusedError(f"--text {path} cannot be read: {error.strerror}. Name another file.") from None


def _corpus(source: str, text: str) -> Corpus:
    """Return the text as numbers. The vocabulary is sorted, so codes do not depend on the order in the text."""
    counts = Counter(text)
    if len(counts) > LARGEST_VOCABULARY:
        kept = {character for character, _ in counts.most_common(LARGEST_VOCABULARY - 1)}
        text = "".join(character if character in kept else RARE for character in text)
    characters = "".join(sorted(set(text)))
    code = {character: number for number, character in enumerate(characters)}
    return Corpus(source, characters, np.fromiter((code[character] for character in text), np.intp, len(text)))
