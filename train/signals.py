"""Signals that end a run from outside, and how a step in progress is let end first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""The third comes from a terminal that closes, the fourth from Ctrl-Break on Windows."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and its state is saved."""


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Lets the step in progress end after Ctrl-C, a termination signal or a terminal that closes.

    A second Ctrl-C does not wait. A signal that is ignored already stays so, as with ``nohup``.

    Yields:
        An event that is set once the run shall stop.
    """
    asked = threading.Event()

    def ask_to_stop(number: int, _frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield asked
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {
        number: signal.signal(number, ask_to_stop)
        for number in numbers
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
