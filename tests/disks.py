"""A disk that is full, as far as files can tell. POSIX only."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_file_beyond(most: int) -> Iterator[None]:
    """A disk on which every file is full at a size: what the system answers is what a full disk answers."""
    import resource  # not on Windows, where modules that use this are read, too

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
