"""Runs side by side on one device, the longest first, within a time limit; what is done stays done."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contest.cost import seconds_of
from contest.plan import Planned, Planner
from contest.records import RunKey, Store, write_json
from contest.worker import Job
from salakseg.train.signals import stop_on_signal

_GRACE = {True: 20.0, False: 3.0}  # seconds before the limit at which workers are asked to stop, if they keep a state
_LAST = 15.0  # seconds that they have then to write their state


@dataclass(frozen=True, slots=True)
class Terms:
    """How the runs are done.

    Attributes:
        data: The prepared folder.
        device: "cpu" or "cuda".
        jobs: How many side by side.
        stop_after: Seconds from now until all must have ended; None is no limit.
        resumable: Whether a run that is stopped can go on later.
        entry: The script whose ``--worker`` does a run.
    """

    data: Path
    device: str
    jobs: int
    stop_after: float | None
    resumable: bool
    entry: Path


@dataclass(slots=True)
class _Running:
    planned: Planned
    process: "subprocess.Popen[bytes]"
    until: float


def run_all(
    keys: Sequence[RunKey], planner: Planner, store: Store, terms: Terms, started: float, say: Callable[[str], None]
) -> bool:
    """Does what is not done yet.

    Args:
        keys: The runs.
        planner: Gives each its recipe.
        store: Where results go.
        terms: How the runs are done.
        started: When the clock of the limit began, by `time.monotonic`.
        say: Called with a line worth reading.

    Returns:
        Whether every run is finished.
    """
    deadline = None if terms.stop_after is None else started + terms.stop_after
    waiting = [key for key in keys if not _is_done(key, planner, store)]
    say(f"{len(keys) - len(waiting)} of {len(keys)} runs are done already")
    failed: set[RunKey] = set()
    running: list[_Running] = []
    with stop_on_signal() as stop:
        try:
            while (waiting or running) and not stop.is_set():
                _reap(running, store, failed, terms.resumable, say)
                if deadline is not None and running and time.monotonic() > deadline - _GRACE[terms.resumable]:
                    break
                if not _start_next(waiting, running, planner, store, terms, deadline, say):
                    if waiting and not running:
                        break
                    time.sleep(0.3)
        finally:
            _end(running, say)
            _reap(running, store, failed, terms.resumable, say)
    left = [key for key in keys if not store.record(key.id).is_file()]
    say(f"{len(keys) - len(left)} of {len(keys)} runs are done")
    if left:
        say("not done: " + " ".join(f"{key.method}:{key.seed}" for key in left))
    for key in failed:
        say(f"failed: {key.id}, see {store.log(key.id)}")
    return not left


def _is_done(key: RunKey, planner: Planner, store: Store) -> bool:
    planned = planner.plan(key, store)
    return planned is not None and store.is_finished(key.id, planned.digest)


def _start_next(
    waiting: list[RunKey],
    running: list[_Running],
    planner: Planner,
    store: Store,
    terms: Terms,
    deadline: float | None,
    say: Callable[[str], None],
) -> bool:
    """Starts the longest run that still fits and hangs on no other; says whether one was."""
    if len(running) >= terms.jobs or not waiting:
        return False
    records = store.records()
    ready = [planned for key in waiting if (planned := planner.plan(key, store)) is not None]
    timed = [
        (seconds_of(planned.recipe, records, planned.key.budget, terms.device, terms.jobs), planned)
        for planned in ready
    ]
    left = float("inf") if deadline is None else deadline - _GRACE[terms.resumable] - time.monotonic()
    # A run that can go on later may also begin where it will not end, if all that would end are done
    fitting = [item for item in timed if item[0] <= left]
    if not fitting and terms.resumable and left > 60:
        fitting = timed
    if not fitting:
        return False
    seconds, planned = max(fitting, key=lambda item: item[0])
    waiting.remove(planned.key)
    running.append(_Running(planned, _start(planned, store, terms), time.monotonic() + seconds))
    say(f"start {planned.key.id}, about {seconds:.0f} s; {len(waiting)} wait")
    return True


def _start(planned: Planned, store: Store, terms: Terms) -> "subprocess.Popen[bytes]":
    job = Job(
        planned.key,
        planned.recipe.model_dump(mode="json"),
        planned.all_labelled,
        terms.data.resolve(),
        store.out.resolve(),
        terms.device,
        terms.jobs,
        terms.resumable,
    )
    path = store.out / "unfinished" / f"{planned.key.id}.job.json"
    write_json(path, job.to_json())
    log = store.log(planned.key.id)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    if terms.jobs > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // terms.jobs))
    with log.open("ab") as file:
        # A session of its own: Ctrl-C reaches the parent alone, which then asks its workers to stop
        return subprocess.Popen(
            [sys.executable, str(terms.entry), "--worker", str(path)],
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )


def _reap(
    running: list[_Running], store: Store, failed: set[RunKey], resumable: bool, say: Callable[[str], None]
) -> None:
    for item in [item for item in running if item.process.poll() is not None]:
        running.remove(item)
        key = item.planned.key
        if store.record(key.id).is_file():
            (store.out / "unfinished" / f"{key.id}.job.json").unlink(missing_ok=True)
            say(f"done {key.id}{_time_left(running)}")
        elif item.process.returncode == 130:
            say(f"stopped {key.id}; with the next call it {'goes on' if resumable else 'begins anew'}")
        else:
            failed.add(key)
            say(f"FAILED {key.id} (exit {item.process.returncode}): {_last_line(store.log(key.id))}")


def _time_left(running: list[_Running]) -> str:
    if not running:
        return ""
    seconds = max(item.until for item in running) - time.monotonic()
    return f"; {len(running)} run on, {max(seconds, 0):.0f} s left by the estimate"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _kill(running: list[_Running]) -> None:
    for item in running:
        if item.process.poll() is None:
            item.process.kill()


def _end(running: list[_Running], say: Callable[[str], None]) -> None:
    """Asks all that run to stop, and waits for them."""
    if not running:
        return
    say(f"stopping {len(running)} run(s)")
    for item in running:
        if item.process.poll() is None:
            item.process.send_signal(signal.SIGTERM)
    killer = threading.Timer(_LAST, _kill, [running])
    killer.start()
    for item in running:
        item.process.wait()
    killer.cancel()
