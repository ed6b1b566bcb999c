"""The command line, ``gradclip``. The library itself imports nothing from here."""

import sys
from importlib.util import find_spec
from io import TextIOWrapper

PACKAGES = ("rich", "typer")


def main() -> None:
    """Run the command line. If a package that it needs is missing, exit with one line that says so.

    The extra ``cli`` installs these packages. They are imported when the command runs, not by ``import gradclip``.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        sys.exit(
            f"gradclip: the command line needs {', '.join(missing)}, which the extra 'cli' installs: "
            'pip install "gradclip[cli]"'
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # characters that the encoding lacks must not end the command
    from gradclip._cli.app import app

    app(prog_name="gradclip")
