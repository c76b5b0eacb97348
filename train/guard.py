"""What can end a run from outside: a signal."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and its state is saved."""


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Lets the step in progress end after Ctrl-C or a termination signal; a second one does not wait.

    Yields:
        An event that is set once the run shall stop.
    """
    asked = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield asked
        return
    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
