"""Files are known by their content."""

import hashlib
from pathlib import Path

from salakseg.errors import EngineError


def sha256_of(path: Path) -> str:
    """Digest of a file's content, as hexadecimal text.

    Raises:
        EngineError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror}).") from error
