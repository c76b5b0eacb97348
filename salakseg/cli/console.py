"""What the commands show: lines and progress on stderr, results on stdout."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as shells have it."""

_BAR_EVERY = 0.1  # seconds between two movements of the bar
_LINE_EVERY = 15.0  # seconds between progress lines where there is no terminal


def say(line: str) -> None:
    """Writes one line to stderr; markup in file or class names stays text."""
    stderr.print(Text(line))


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left on a terminal, now and then a line elsewhere.

    Args:
        what: What is being done.
        unit: What is counted, in the plural.

    Yields:
        A function of done and to do.
    """
    if not stderr.is_terminal:
        yield _Pace(lambda done, total, rate: say(f"{what}: {done:,} of {total:,} {unit}, {rate}"), _LINE_EVERY, unit)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=stderr, transient=True) as progress:
        task = progress.add_task(what, total=None, rate="")

        def show(done: int, total: int, rate: str) -> None:
            progress.update(task, completed=done, total=total, rate=rate)

        yield _Pace(show, _BAR_EVERY, unit)


class _Pace:
    """Passes progress on at most every so many seconds, with the rate since the start."""

    def __init__(self, show: Callable[[int, int, str], None], every: float, unit: str) -> None:
        self._show = show
        self._every = every
        self._unit = unit
        self._start: tuple[float, int] | None = None
        self._shown = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._start is None:  # a resumed run does not begin at nought
            self._start = (now, done)
        if now - self._shown < self._every:
            return
        self._shown = now
        seconds, done_since = now - self._start[0], done - self._start[1]
        rate = done_since / seconds if seconds > 0 else 0.0
        self._show(done, total, f"{rate:.1f} {self._unit}/s" if rate else "")
