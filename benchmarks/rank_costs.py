"""Prints what a call costs on two ranks: time, collectives and bytes. ``python -m benchmarks.rank_costs``."""

import argparse
import os
import time
from dataclasses import dataclass
from statistics import median

from benchmarks.rows_ranks import MANY, SIZES, Ranks
from benchmarks.sets import GradientSet

ABOVE = 1e9
"""A threshold that the gradients' norm does not exceed: nothing is written, so no call changes the next."""
COLUMNS = ("warm", "CPU", "first call", "collectives", "sent")


@dataclass(frozen=True, slots=True)
class Call:
    """One call on both ranks: milliseconds with the message to them and back, and of their CPU time together."""

    wall: float
    cpu: float


def called(ranks: Ranks, what: str, seconds: float) -> Call:
    """Return what a call on both ranks took; raise TimeoutError if it takes more than these seconds."""
    start = time.perf_counter()
    *_, cpu = ranks.measured(what, ABOVE, seconds)
    return Call((time.perf_counter() - start) * 1e3, cpu * 1e3)


def started(number: int, kind: str) -> Ranks:
    """Return two ranks that are ready."""
    ranks = Ranks(GradientSet("", ((64,),) * number), kind)
    ranks.call("restore")
    return ranks


def first(ranks: Ranks, what: str, seconds: float) -> Call | None:
    """Return what the first call took, or None if it takes more than these seconds."""
    try:
        return called(ranks, what, seconds)
    except TimeoutError:
        return None


def line(number: int, kind: str, rounds: int, seconds: float) -> str:
    """Return a row of the table; PyTorch has nothing for plain gradients of a group."""
    ranks = started(number, kind)
    cold = {what: first(ranks, what, seconds) for what in (["ours", "torch"] if kind == "DTensor" else ["ours"])}
    who = [what for what, call in cold.items() if call]
    if len(who) < len(cold):
        del ranks  # they are still in their first call
        ranks = started(number, kind)
        first(ranks, "ours", seconds)
    calls = [{what: called(ranks, what, seconds) for what in who} for _ in range(rounds)]
    cells = [f"{number:,}", kind]
    for what, call in cold.items():
        if call is None:
            cells += ["–", "–", f"more than {seconds:,.0f} s", "–", "–"]
            continue
        collectives, nbytes = ranks.call(f"count-{what}", ABOVE)
        cells += [
            f"{median(some[what].wall for some in calls):.2f} ms",
            f"{min(some[what].cpu for some in calls):.2f} ms",
        ]
        cells += [f"{call.wall:,.0f} ms", f"{collectives:.0f}", f"{nbytes:,.0f} B"]
    return "| " + " | ".join(cells + ["–"] * (2 + 2 * len(COLUMNS) - len(cells))) + " |"


def main() -> None:
    """Print the table, and how busy the machine was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="calls of each, in turns, after the first")
    parser.add_argument("--seconds", type=float, default=600, help="how long a first call may take")
    parser.add_argument("--sizes", type=int, nargs="+", default=[*SIZES, MANY], help="numbers of parameters")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    columns = [f"{who}, {what}" for who in ("ours", "torch") for what in COLUMNS]
    print("| parameters | kind | " + " | ".join(columns) + " |\n|" + "---|" * (2 + len(columns)))
    for number in options.sizes:
        for kind in ("DTensor", "plain, group="):
            print(line(number, kind, options.rounds, options.seconds), flush=True)
    print(f"\nLoad of the machine: {load:.1f} before, {os.getloadavg()[0]:.1f} after.")
    print(f"warm: the median of {options.rounds} calls in turns, with the message to the ranks and back.")
    print("CPU: the least CPU time of both ranks together in these calls.")


if __name__ == "__main__":
    main()
