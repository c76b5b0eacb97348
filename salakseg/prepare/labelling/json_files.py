"""JSON files of labelling tools: read once, recognised by what they hold."""

import json
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from unicodedata import normalize

from salakseg.errors import DataError

JsonKind = Literal["COCO", "LabelMe", "GeoJSON"]


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds, not to be changed; kept for the next source while the file stays the same.

    Raises:
        DataError: The file cannot be read, or holds something else.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name the labels with --labels.") from error
    return _read_json(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)
def _read_json(path: Path, *_: int) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); see that you may read it.") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no JSON file, or it is cut off ({error}); export the labels again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object; COCO, LabelMe or GeoJSON labels are expected.")
    return content


def json_kind(path: Path) -> JsonKind:
    """What a JSON file holds.

    Raises:
        DataError: It holds no labels that are known.
    """
    if path.suffix.casefold() == ".geojson":
        return "GeoJSON"
    content = read_json(path)
    if "images" in content and "annotations" in content:
        return "COCO"
    if "shapes" in content:
        return "LabelMe"
    if content.get("type") in ("FeatureCollection", "Feature", "GeometryCollection", "Polygon", "MultiPolygon"):
        return "GeoJSON"
    raise DataError(
        f"{path} holds no labels that are known; COCO has 'images' and 'annotations', LabelMe has 'shapes', GeoJSON "
        "has 'type': 'FeatureCollection'."
    )


def file_parts(name: str) -> tuple[str, ...]:
    """The parts of a path as some tool on some system wrote it, for comparison."""
    return PurePosixPath(normalize("NFC", name).replace("\\", "/").casefold()).parts


def stem_of(name: str) -> str:
    """A file name's stem, for comparison."""
    parts = file_parts(name)
    return PurePosixPath(parts[-1]).stem if parts else ""
