"""The command line: ``gradclip doctor``. Nothing here is imported by the library itself."""

import sys
from importlib.util import find_spec
from io import TextIOWrapper

PACKAGES = ("rich", "typer")


def main() -> None:
    """Run the command line, or say in one line what is missing for it.

    The command line's packages are the extra ``cli``, so that the library stays small: they are imported here, on
    use, and not on ``import gradclip``.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        sys.exit(
            f"gradclip: the command line needs {', '.join(missing)}, which the extra 'cli' installs: "
            'pip install "gradclip[cli]"'
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a narrow encoding must not end the command
    from gradclip._cli.app import app

    app(prog_name="gradclip")
