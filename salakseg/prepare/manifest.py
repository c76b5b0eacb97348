"""``ROOT/prepare.json``: what a data root was made from, and which of it is finished.

By it a second run with the same arguments knows that there is nothing to do, and one with others that there is a
contradiction.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from salakseg.errors import DataError
from salakseg.mapping.files import put_bytes

FILE_NAME = "prepare.json"
FORMAT = 1
"""Version of the file's layout."""

Plain = dict[str, Any]
"""Values as JSON has them."""


@dataclass(slots=True)
class Manifest:
    """What a data root was made from.

    Attributes:
        root: The data root.
        settings: What all its patches have in common: patch, stride, gsd_m, min_valid, and, once there are labels,
            classes.
        sources: What each finished source was cut from and how, by folder and name.
        indexed: Whether the index is that of these sources.
    """

    root: Path
    settings: Plain = field(default_factory=dict)
    sources: dict[str, Plain] = field(default_factory=dict)
    indexed: bool = False

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.root / FILE_NAME

    @classmethod
    def read(cls, root: Path) -> Self:
        """Reads what there is; a root without the file has an empty one.

        Raises:
            DataError: It is damaged, or of a later version.
        """
        manifest = cls(root)
        try:
            found = json.loads(manifest.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return manifest
        except (OSError, ValueError) as error:
            raise DataError(f"{manifest.path} cannot be read ({error}); choose another --out.") from error
        try:
            if found["format"] != FORMAT:
                raise DataError(
                    f"{manifest.path} has layout {found['format']}, this salakseg knows {FORMAT}; update it, or choose "
                    "another --out."
                )
            return cls(root, dict(found["settings"]), dict(found["sources"]), bool(found["indexed"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{manifest.path} is no file of salakseg prepare; choose another --out.") from error

    def write(self) -> None:
        """Writes the file.

        Raises:
            OSError: It cannot be written.
        """
        value = {
            "format": FORMAT,
            "settings": self.settings,
            "indexed": self.indexed,
            "sources": dict(sorted(self.sources.items())),
        }
        put_bytes(self.path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def gsd_of(root: Path) -> float | None:
    """Metres a pixel that `salakseg prepare` cut all patches of a data root at; None if nothing tells of it."""
    try:
        found = Manifest.read(root).settings.get("gsd_m")
    except DataError:
        return None
    return float(found) if isinstance(found, int | float) else None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What differs between two tables of plain values, in a few words; None if nothing does."""
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if not keys:
        return None
    return "; ".join(_difference(key, before.get(key), now.get(key)) for key in keys[:3])


def _difference(key: str, before: object, now: object) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        return f"{key}: {differences(before, now)}"
    return f"{key} was {_short(before)}, is {_short(now)}"


def _short(value: object) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def plain(value: Any) -> Any:  # noqa: ANN401
    """A value as it comes back from JSON, so that it can be compared with one that did."""
    return json.loads(json.dumps(value))
