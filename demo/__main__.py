"""The command ``python -m demo``. If a package is missing or an input is wrong, it prints one line that says so."""

import sys
from importlib.util import find_spec
from io import TextIOWrapper

PACKAGES = ("gradclip", "typer", "rich", "matplotlib")


def main() -> None:
    """Run the demo."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        sys.exit(f'demo: {", ".join(missing)} not installed; run: make demo, or: pip install -e ".[demo]"')
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # characters that the encoding lacks must not end the run
    from demo.checks import RefusedError
    from demo.command import app

    try:
        app(prog_name="python -m demo")
    except RefusedError as refused:
        print(f"demo: {refused}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
