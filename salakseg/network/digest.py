"""Models are known by their content."""

import hashlib
from pathlib import Path

from salakseg.errors import EngineError
from salakseg.network.bundle import bundled_source


def sha256_of(path: Path) -> str:
    """Digest of a file's content, as hexadecimal text; of a bundle, that of the checkpoint that it was made from.

    The weights of an ONNX file may lie in ``NAME.onnx.data`` beside it, where torch puts them; they count as well.

    Raises:
        CheckpointError: The path is a folder, but no bundle.
        EngineError: The file cannot be read.
    """
    if path.is_dir():
        return bundled_source(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        beside = path.with_name(f"{path.name}.data")
        if path.suffix.lower() == ".onnx" and beside.is_file():
            with beside.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror}).") from error
