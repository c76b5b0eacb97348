"""Self-training methods against each other, on labelled aerial images of eight scenes.

    selftraining.py --prepare SOURCE --data DATA                  # once: copies what training may see, no test image
    selftraining.py --data DATA --set table                       # trains what is missing; the same call again goes on
    selftraining.py --data DATA --set ablations strategies long
    selftraining.py --data DATA --runs phase4:0,1 v3 --iterations 600
    selftraining.py --data DATA --try "mine=phase4" selftraining.weight=0.5 --runs mine --iterations 600
    selftraining.py --score-only --data SOURCE --parts 6 7        # opens the test masks, once for each run: of the
                                                                  # table, or those of --runs and --set
    selftraining.py --data DATA --timing v3 phase4                # seconds of a step, on a quiet machine
    selftraining.py --report                                      # tables and pictures of all that is there
    selftraining.py --report --test                               # with the test images, when all is chosen

SOURCE is the folder "Semantic segmentation of aerial imagery" (Humans in the Loop, 2020, CC0 1.0) as published. Sets:
table, ablations, long, and in short runs screening, strategies, tuning (for v3-tuned). Results lie in --out. `--budget
cpu` halves the images (128-pixel crops, 3,000 steps, 7,500 in long runs), `--budget gpu` takes them whole (256-pixel
crops, 2,000 and 10,000 steps, 12 runs side by side).
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from contest.methods import SETS

from salakseg.errors import SalaksegError

if TYPE_CHECKING:
    from contest.plan import Planner
    from contest.records import RunKey


def main(words: Sequence[str] | None = None) -> int:
    started = time.monotonic()
    arguments = parse(words)
    if arguments.worker:
        from contest.worker import work

        return work(arguments.worker)
    try:
        return dispatch(arguments, started)
    except SalaksegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def dispatch(arguments: argparse.Namespace, started: float) -> int:
    from contest.records import Store
    from contest.settings import BUDGETS

    if arguments.test and not arguments.report:
        sys.exit("selftraining.py: --test says what --report shows; give both")
    budget, store = BUDGETS[arguments.budget], Store(arguments.out)
    if arguments.prepare:
        from contest.protocol import prepare

        prepare(arguments.prepare, needed(arguments.data), budget.reduce)
        return 0
    if arguments.score_only:
        from contest.score import score_all

        named = arguments.set or arguments.runs
        only = [key.id for key in asked_for(arguments)[0]] if named else None
        score_all(needed(arguments.data), arguments.parts, store, arguments.device, say, only)
        return 0
    if arguments.timing:
        from contest.timing import time_steps

        data, weights = needed(arguments.data), arguments.encoder_weights
        time_steps(arguments.timing, budget, data, store, arguments.device, weights, say)
        return 0
    if arguments.report:
        from contest.report import write_report

        write_report(store, arguments.test, say)
        return 0
    return train(arguments, started)


def train(arguments: argparse.Namespace, started: float) -> int:
    from contest.records import Store
    from contest.schedule import Terms, run_all
    from contest.settings import BUDGETS

    from salakseg.network.device import pick_device

    budget = BUDGETS[arguments.budget]
    keys, own = asked_for(arguments)
    device = pick_device(arguments.device)
    jobs = arguments.jobs or (budget.jobs if device == "cuda" else 1)
    resumable = device == "cpu" if arguments.resumable is None else arguments.resumable
    terms = Terms(needed(arguments.data), device, jobs, arguments.stop_after, resumable, Path(__file__).resolve())
    done = run_all(list(dict.fromkeys(keys)), own, Store(arguments.out), terms, started, say)
    return 0 if done else 3


def asked_for(arguments: argparse.Namespace) -> tuple[list["RunKey"], "Planner"]:
    """The runs of --set and --runs, the table's without either, and who plans them."""
    from contest.methods import runs_of_set
    from contest.plan import Planner, parse_runs, parse_tries
    from contest.settings import BUDGETS

    from salakseg.train.recipe import parse_setting

    budget = BUDGETS[arguments.budget]
    tries = parse_tries(arguments.tries)
    changes = [parse_setting(text) for text in arguments.change]
    keys = []
    for name in arguments.set or (["table"] if not arguments.runs else []):
        planner = Planner(budget, arguments.iterations or budget.length_of(name), tries=tries)
        keys += [planner.key(method, seed) for method, seed in runs_of_set(name)]
    own = Planner(budget, arguments.iterations or budget.iterations, arguments.encoder_weights, changes, tries)
    return keys + [own.key(method, seed) for method, seed in parse_runs(arguments.runs)], own


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="the prepared folder; with --score-only the source or another like it"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/selftraining"))
    parser.add_argument("--prepare", type=Path, metavar="SOURCE")
    parser.add_argument("--score-only", action="store_true")
    parser.add_argument("--parts", type=int, nargs="+", default=[6, 7])
    parser.add_argument("--timing", nargs="+", default=[], metavar="METHOD", help="seconds of a step, alternating")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--test", action="store_true", help="with --report: what --score-only found, too")
    parser.add_argument("--budget", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--jobs", type=int, help="runs side by side; by default 1 on a CPU, 12 on a GPU")
    parser.add_argument("--set", nargs="+", choices=("table", *SETS), default=[])
    parser.add_argument("--runs", nargs="+", default=[], metavar="METHOD:SEEDS")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--try", dest="tries", nargs="+", action="append", default=[], metavar="NAME=METHOD SETTING")
    parser.add_argument(
        "--change",
        nargs="+",
        default=[],
        metavar="SETTING",
        help="section.key=value in every run; take an --out of its own",
    )
    parser.add_argument("--encoder-weights", default="imagenet", help="a file with ImageNet weights of the encoder")
    parser.add_argument("--stop-after", type=float, metavar="SECONDS", help="all has ended by then")
    parser.add_argument("--resumable", action=argparse.BooleanOptionalAction, help="write states at evaluations")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def needed(data: Path | None) -> Path:
    if data is None:
        sys.exit("selftraining.py: --data is needed for this")
    return data


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
