"""What the commands show: lines and progress on stderr, results on stdout."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

# Of several processes that train together the first one speaks; torchrun tells each its number
stderr = Console(stderr=True, highlight=False, quiet=os.environ.get("RANK", "0") != "0")
stdout = Console(highlight=False)

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as shells have it."""

_BAR_EVERY = 0.1  # seconds between two movements of the bar
_LINE_EVERY = 15.0  # seconds between progress lines where there is no terminal


def say(line: str) -> None:
    """Writes one line to stderr; markup in file or class names stays text, and no path is broken in two."""
    stderr.print(Text(line), soft_wrap=True)


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator["Pace"]:
    """A bar with rate and time left on a terminal, now and then a line elsewhere.

    Args:
        what: What is being done.
        unit: What is counted, in the plural.

    Yields:
        A function of done, to do, and a note.
    """
    if not stderr.is_terminal:
        yield Pace(lambda done, total, text: say(f"{what}: {text}"), _LINE_EVERY, unit)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, TimeRemainingColumn(), console=stderr, transient=True) as progress:
        task = progress.add_task(what, total=None, text="")

        def show(done: float, total: float, text: str) -> None:
            progress.update(task, completed=done, total=total, text=text)

        yield Pace(show, _BAR_EVERY, unit)


class Pace:
    """Passes progress on at most every so many seconds, with the rate since the start."""

    def __init__(self, show: Callable[[float, float, str], None], every: float, unit: str) -> None:
        self._show = show
        self._every = every
        self._unit = unit
        self._start: tuple[float, float] | None = None
        self._shown = time.monotonic()

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Takes what is done, what is to do in all, and whatever else is worth a word."""
        now = time.monotonic()
        if self._start is None:  # a resumed run does not begin at nought
            self._start = (now, done)
        if now - self._shown < self._every:
            return
        self._shown = now
        seconds, done_since = now - self._start[0], done - self._start[1]
        text = f"{_count(done)} of {_count(total)} {self._unit}"
        if seconds > 0 and done_since > 0:
            text += f", {done_since / seconds:.1f} {self._unit}/s"
        self._show(done, total, text + (f", {note}" if note else ""))


def _count(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.1f}"
