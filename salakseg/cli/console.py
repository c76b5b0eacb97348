"""What the commands show: lines and progress on stderr, results on stdout."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

# Of several processes that train together the first one speaks; torchrun tells each its number
_RANK = os.environ.get("RANK", "0")


class _Unfailing:
    """Standard error; what it does not take any more is lost, and never the run that says it.

    A terminal closes, a pipe breaks, and the disk of a log that is full takes no word of warning either.
    """

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever a stream has
        return getattr(self._stream, name)

    @property
    def _stream(self) -> TextIO | None:
        """None in a program without a console."""
        stream: TextIO | None = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # a live view stands in between
        return stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            if (stream := self._stream) is not None:
                stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            if (stream := self._stream) is not None:
                stream.flush()


stderr = Console(file=cast(IO[str], _Unfailing()), highlight=False, quiet=_RANK != "0")
stdout = Console(highlight=False)

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C ended, as shells have it."""

_BAR_EVERY = 0.1  # seconds between two movements of the bar
_LINE_EVERY = 15.0  # seconds between progress lines where there is no terminal


def say(line: str) -> None:
    """Writes one line to stderr; markup in file or class names stays text, and no path is broken in two."""
    stderr.print(Text(line), soft_wrap=True)


def say_error(line: str) -> None:
    """The same for an error, of which each of several processes speaks: it may have met it alone."""
    if _RANK == "0":
        say(line)
    else:
        print(f"process {_RANK}: {line}", file=sys.stderr)


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
