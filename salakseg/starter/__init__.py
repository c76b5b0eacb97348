"""The starter model: a small network that comes with the package, for maps before anybody has trained.

It learned from satellite images of other ground and knows water, buildings, roads, vegetation and bare land, but no
salak palm. Its card says what it was trained on and how good it is; ``benchmarks/starter.py`` made it.
"""

import importlib.resources
from pathlib import Path

NAME = "starter"
"""What stands for it on the command line."""

LIMITS = (
    "the starter model, which learned from satellite images of a desert city, knows water, building, road, vegetation "
    "and land, and no salak palm; it takes most green ground for water, so this shows what a map looks like and is no "
    "map to work with: train your own with `salakseg train`"
)


def starter_model() -> Path:
    """The bundle's folder."""
    return Path(str(importlib.resources.files(__name__) / "salakseg-starter"))


def is_starter(path: Path) -> bool:
    """Whether a user means the starter model by a path: its name, where there is no such file."""
    return str(path) == NAME and not path.exists()
