"""Models are known by their content."""

import hashlib
from pathlib import Path

from salakseg.errors import EngineError
from salakseg.network.bundle import bundled_source


def sha256_of(path: Path) -> str:
    """Digest of a file's content, as hexadecimal text; of a bundle, that of the checkpoint that it was made from.

    Raises:
        CheckpointError: The path is a folder, but no bundle.
        EngineError: The file cannot be read.
    """
    if path.is_dir():
        return bundled_source(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror}).") from error
