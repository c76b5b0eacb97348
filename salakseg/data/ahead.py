"""Reading ahead: several threads work on what comes next while the present thing is used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int) -> Iterator[Result]:
    """Results in the order of the items.

    Decoding pictures runs outside Python's lock, and reading waits for the disk: threads are enough.

    Args:
        read: Called with each item in one of the threads; what it raises is raised here, in its turn.
        items: What to read.
        threads: Number of threads.
        ahead: Results that may wait to be used.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque(pool.submit(read, item) for item in islice(waiting, ahead))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(read, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()
