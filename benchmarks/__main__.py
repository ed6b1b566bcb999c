"""The command: ``python -m benchmarks``, from the root of the repository."""

import argparse
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import markdown, plot, table
from benchmarks.session import Session, listing
from benchmarks.timing import Plan

_OUT = Path(__file__).parent / "out"
_QUICK = Plan(rounds=3, sample_seconds=1e-4, shrink=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks and return the exit status: 1 if a row failed, or if our own answer was wrong."""
    options = _options(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a pipe may have an encoding without ×
    console = Console()
    if options.list:
        for name, note in listing():
            if options.only.search(name):
                console.print(f"{name}  {note}".rstrip(), soft_wrap=True, highlight=False, markup=False)
        return 0
    plan = _QUICK if options.quick else Plan()
    report = Session(replace(plan, rounds=options.rounds or plan.rounds), options.only, Console(stderr=True)).run()
    options.out.mkdir(parents=True, exist_ok=True)
    report.write_json(options.out / "benchmarks.json")
    (options.out / "benchmarks.md").write_text(markdown.render(report), encoding="utf-8")
    plot.write(report, options.out / "benchmarks.png")
    table.show(report, console)
    return 1 if report.failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="gradclip beside its peers and the floor")
    parser.add_argument(
        "--out", type=Path, default=_OUT, metavar="DIR", help="where files go (default: benchmarks/out)"
    )
    parser.add_argument("--quick", action="store_true", help="cut-down gradients: shows in seconds that all works")
    parser.add_argument("--only", type=_pattern, default="", metavar="REGEX", help="measure what has this in its name")
    parser.add_argument(
        "--rounds", type=_count, metavar="N", help="samples of each contender (default: as time allows)"
    )
    parser.add_argument("--list", action="store_true", help="print all names, and leave")
    return parser.parse_args(arguments)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as e:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {e}") from e


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
