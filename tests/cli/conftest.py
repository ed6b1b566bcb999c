"""The command as a function."""

import sys

import pytest

from gradclip._cli import main


@pytest.fixture
def gradclip(monkeypatch, capsys):
    """Return the command as a function: arguments to exit code, output and errors."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradclip", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return run
