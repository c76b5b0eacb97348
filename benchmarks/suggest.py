"""Do suggestions pay? Rounds of labelling on aerial images: salakseg suggest against random and against entropy alone.

    selftraining.py --prepare SOURCE --data DATA                          # once, see there
    suggest.py --data DATA --seeds 0 1 2                                  # what is not done yet; the same call goes on
    suggest.py --data DATA --strategies suggest random score diverse     # to find out which part does it
    suggest.py --report                                                   # curve.csv and curve.png

Part 1 of every scene is labelled, parts 2 to 4 are the pool, part 5 is validation; no test image is read. The first
network learns from part 1. In each round a strategy picks --count squares of --side pixels from the pool, their masks
are revealed, and a new network learns from the same start for the same number of steps. The masks of the pool are read
for revealed squares only. Suggestions use the classes' precision on validation, as a user's would, and the curve shows
validation as well.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from labelling.strategies import STRATEGIES

from salakseg.errors import SalaksegError


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)
    try:
        if arguments.report:
            from labelling.curve import write_curve

            write_curve(arguments.out, say)
            return 0
        return run(arguments)
    except SalaksegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def run(arguments: argparse.Namespace) -> int:
    from contest.settings import BUDGETS
    from labelling.rounds import Setting, do_run
    from labelling.squares import Pool

    from salakseg.train.recipe import parse_setting

    if arguments.data is None:
        sys.exit("suggest.py: --data is needed for this")
    changes = tuple(parse_setting(text) for text in arguments.change)
    setting = Setting(
        arguments.iterations, arguments.side, arguments.count, arguments.rounds, arguments.encoder_weights, changes
    )
    pool = Pool(arguments.data, arguments.side, BUDGETS["cpu"].window)
    say(f"{len(pool.squares):,} squares in {len(pool.hidden)} pool images")
    started = time.monotonic()
    for seed in arguments.seeds:  # whole comparisons first
        for strategy in arguments.strategies:
            if arguments.stop_after is not None and time.monotonic() - started > arguments.stop_after:
                say("out of time; the same command goes on")
                return 3
            do_run(strategy, seed, pool, setting, arguments.out, arguments.device, say)
    return 0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of selftraining.py --prepare")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/suggest"))
    parser.add_argument("--strategies", nargs="+", choices=tuple(STRATEGIES), default=["suggest", "random", "entropy"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=12, help="squares added in a round")
    parser.add_argument("--side", type=int, default=128, help="side of a square, pixels of the prepared images")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--encoder-weights", default="imagenet", help="a file with ImageNet weights of the encoder")
    parser.add_argument("--change", nargs="+", default=[], metavar="SETTING", help="section.key=value in every run")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--stop-after", type=float, metavar="SECONDS", help="begin no further run after that")
    parser.add_argument("--report", action="store_true")
    return parser.parse_args(words)


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
