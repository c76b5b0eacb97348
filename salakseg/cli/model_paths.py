"""What a user names by a path where a model is wanted."""

from pathlib import Path

from salakseg.errors import EngineError
from salakseg.network.bundle import is_bundle
from salakseg.starter import is_starter, starter_model


def checkpoint_at(path: Path) -> Path:
    """What a user names by a path: the starter model, of a run's folder its best checkpoint, else the path itself.

    Raises:
        EngineError: It is another folder.
    """
    if is_starter(path):
        return starter_model()
    if not path.is_dir() or is_bundle(path):
        return path
    best = path / "checkpoints" / "best.pt"
    if not best.is_file():
        raise EngineError(
            f"{path} is no bundle, nor the folder of a run with checkpoints/best.pt; name a model's file or its folder."
        )
    return best
