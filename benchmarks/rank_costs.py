"""Prints what a call costs on two ranks: time, collectives and bytes. ``python -m benchmarks.rank_costs``."""

import argparse
import os
import time
from statistics import median

from benchmarks.rows_ranks import SIZES, Ranks
from benchmarks.sets import GradientSet

ABOVE = 1e9
"""A threshold that the gradients' norm does not exceed: nothing is written, so no call changes the next."""


def milliseconds(ranks: Ranks, what: str) -> float:
    """Return how long a call takes on both ranks, with the message to them and back."""
    start = time.perf_counter()
    ranks.call(what, ABOVE)
    return (time.perf_counter() - start) * 1e3


def line(number: int, kind: str, rounds: int) -> str:
    """Return a row of the table; PyTorch has nothing for plain gradients of a group."""
    ranks = Ranks(GradientSet("", ((64,),) * number), kind)
    ranks.call("restore")  # both are ready
    who = ["ours", "torch"] if kind == "DTensor" else ["ours"]
    cold = {what: milliseconds(ranks, what) for what in who}
    times = [{what: milliseconds(ranks, what) for what in who} for _ in range(rounds)]
    cells = [f"{number:,}", kind]
    for what in who:
        collectives, nbytes = ranks.call(f"count-{what}", ABOVE)
        warm = median(some[what] for some in times)
        cells += [f"{warm:.2f} ms", f"{cold[what]:,.0f} ms", f"{collectives:.0f}", f"{nbytes:,.0f} B"]
    return "| " + " | ".join(cells + ["–"] * (10 - len(cells))) + " |"


def main() -> None:
    """Print the table, and how busy the machine was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="calls of each, in turns, after the first")
    rounds = parser.parse_args().rounds
    load = os.getloadavg()[0]
    columns = [f"{who}, {what}" for who in ("ours", "torch") for what in ("warm", "first call", "collectives", "sent")]
    print("| parameters | kind | " + " | ".join(columns) + " |\n|" + "---|" * 10)
    for number in SIZES:
        for kind in ("DTensor", "plain, group="):
            print(line(number, kind, rounds), flush=True)
    print(f"\nLoad of the machine: {load:.1f} before, {os.getloadavg()[0]:.1f} after; medians of {rounds} calls.")


if __name__ == "__main__":
    main()
