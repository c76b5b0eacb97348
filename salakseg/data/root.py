"""What lies in a data root beside the patches: the class mapping and the split."""

from collections.abc import Callable
from pathlib import Path

from salakseg.classes import SALAK, ClassMap
from salakseg.errors import DataError

CLASS_MAPPING = "class_mapping.csv"
SPLITS = "splits.csv"


def choose_class_map(path: Path | None, data_root: Path, say: Callable[[str], None]) -> ClassMap:
    """The class mapping that was named, or the one in the data root, or the built-in salak classes.

    Args:
        path: What was named, if anything.
        data_root: Folder with the patches.
        say: Called with a line on which it is.

    Raises:
        ClassMapError: The file cannot be read.
    """
    if path is None and (data_root / CLASS_MAPPING).is_file():
        path = data_root / CLASS_MAPPING
    if path is None:
        say("classes: the built-in salak classes")
        return SALAK
    class_map = ClassMap.from_csv(path)
    say(f"classes: {', '.join(class_map.names)} (from {path})")
    return class_map


def find_splits(path: Path | None, data_root: Path) -> Path | None:
    """The file with the split that was named, or the one in the data root; None if there is none yet.

    Raises:
        DataError: A file was named that does not exist.
    """
    if path is not None and not path.is_file():
        raise DataError(f"{path} does not exist; name the file with the split, or leave --splits out.")
    return path or (data_root / SPLITS if (data_root / SPLITS).is_file() else None)
