"""The command line: ``gradclip demo``. Nothing here is imported by the library itself."""

import sys
from importlib import import_module
from io import TextIOWrapper

_EXTRA = ("typer", "rich", "matplotlib")


def main() -> None:
    """Run the command line, or say in one line what is missing for it.

    The command line's packages are the extra ``demo``, so that the library stays small: they are imported here, on
    use, and not on ``import gradclip``.
    """
    missing = _missing(_EXTRA)
    if missing:
        sys.exit(
            f"gradclip: the command line needs {', '.join(missing)}, which the extra 'demo' installs: "
            'pip install "gradclip[demo]"'
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a narrow encoding must not end a run that has taken a minute
    from gradclip._cli.app import app
    from gradclip._cli.checks import RefusedError

    try:
        app(prog_name="gradclip")
    except RefusedError as refused:
        print(f"gradclip: {refused}", file=sys.stderr)
        sys.exit(2)


def _missing(names: tuple[str, ...]) -> list[str]:
    """Return those of ``names`` that cannot be found, but let any other failure of their import show."""
    missing: list[str] = []
    for name in names:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            missing.append(error.name or name)
    return missing
