"""Small logs for the tests, and how they are read."""

import json
from pathlib import Path

from gradclip.monitor import History, read

DATA = Path(__file__).parent / "data"
TRUE = json.loads((DATA / "true.json").read_text())


def read_text(folder: Path, text: str | bytes, **options) -> tuple[History, list[str]]:
    """Return the history in a log of this content, and the notes."""
    path = folder / "log"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    notes: list[str] = []
    return read(path, on_note=notes.append, **options), notes
