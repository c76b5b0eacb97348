"""Which classes a data root has."""

from collections.abc import Callable
from pathlib import Path

from salakseg.classes import SALAK, ClassMap

CLASS_MAPPING = "class_mapping.csv"
"""The file's name in the data root."""


def choose_class_map(path: Path | None, data_root: Path, say: Callable[[str], None]) -> ClassMap:
    """The class mapping that was named, or the one in the data root, or the built-in salak classes.

    Args:
        path: The file that was named, None for none.
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
