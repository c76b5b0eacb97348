"""The ground that patches of mosaics cover, as ``patches.gpkg`` tells it, and the parts written back into it.

Axes: N patches of the index, two coordinates (longitude, latitude), four corners.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import Transformer
from pyproj.exceptions import ProjError

from salakseg import replacing
from salakseg.data.patches import PatchIndex
from salakseg.errors import DataError

FILE_NAME = "patches.gpkg"
LAYER = "patches"

_COLUMNS = ["folder", "image", "source"]
_BESIDE = ("-journal", "-wal", "-shm")


@dataclass(frozen=True, slots=True, eq=False)
class Footprints:
    """What ground patches cover.

    Attributes:
        corner_N42: Corners in order from the picture's upper left one on, longitude and latitude in degrees (WGS 84),
            float64; NaN where nothing is known.
        source_N: Name of what the patch was cut from; "" where nothing is known.
    """

    corner_N42: NDArray[np.float64]
    source_N: tuple[str, ...]

    @property
    def known_N(self) -> NDArray[np.bool_]:
        """Which patches have a place [N]."""
        return np.asarray(np.isfinite(self.corner_N42).all(axis=(1, 2)))

    def or_else(self, other: "Footprints") -> "Footprints":
        """These, and where they know nothing the others."""
        known_N = self.known_N
        return Footprints(
            np.where(known_N[:, None, None], self.corner_N42, other.corner_N42),
            tuple(a if known else b for a, b, known in zip(self.source_N, other.source_N, known_N, strict=True)),
        )


def read_footprints(path: Path, index: PatchIndex) -> Footprints:
    """Reads the footprints of mosaics' patches.

    Args:
        path: ``patches.gpkg`` as ``salakseg prepare`` writes it, in any coordinate reference system.
        index: The patches; those that the file does not name have no place, and places of others are left out.

    Raises:
        DataError: The file is damaged, is no such file, has no coordinate reference system, or places a patch twice.
    """
    try:
        frame: Any = pyogrio.read_dataframe(path, layer=LAYER, columns=_COLUMNS)
    except (DataSourceError, DataLayerError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); {_ANEW}") from error
    missing = [column for column in _COLUMNS if column not in frame.columns]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r} in its layer {LAYER}; {_ANEW}")
    corner_M42 = _to_degrees(_corners(np.asarray(frame.geometry.array)), frame.crs, path)
    number = {(patch.folder, patch.stem): place for place, patch in enumerate(index.patches)}
    corner_N42 = np.full((len(index.patches), 4, 2), np.nan)
    source_N = [""] * len(index.patches)
    seen: set[int] = set()
    named = zip(frame["folder"].fillna(""), frame["image"].fillna(""), frame["source"].fillna(""), strict=True)
    for row, (folder, image, source) in enumerate(named):
        patch = number.get((folder, os.path.splitext(image)[0]))
        if patch is None:
            continue
        if patch in seen:
            raise DataError(f"{path} places {image!r} of folder {folder!r} twice; {_ANEW}")
        seen.add(patch)
        corner_N42[patch], source_N[patch] = corner_M42[row], source
    return Footprints(corner_N42, tuple(source_N))


def write_parts(path: Path, index: PatchIndex, parts: Sequence[str]) -> None:
    """Writes what each patch is used for into the column ``split``; the file changes in one step, or not at all.

    Args:
        path: ``patches.gpkg``.
        index: The patches.
        parts: A word for each patch.

    Raises:
        DataError: The file cannot be written.
    """
    hidden = path.with_name(f".{path.name}.part")
    word = {(patch.folder, patch.stem): part for patch, part in zip(index.patches, parts, strict=True)}
    try:
        _remove(hidden, ("", *_BESIDE))
        # In SQL, not through a table in memory: whatever else is in the file, such as styles, stays as it is
        with closing(sqlite3.connect(hidden)) as connection:
            with closing(sqlite3.connect(path)) as original:
                original.backup(connection)  # a copy of the file may lack what another program has just changed
            _define_geometry_functions(connection)
            with connection:
                rows = connection.execute(f"SELECT rowid, folder, image, split FROM {LAYER}").fetchall()
                named = [((folder, os.path.splitext(image or "")[0]), row, old) for row, folder, image, old in rows]
                changed = [(word.get(key, ""), row) for key, row, old in named if word.get(key, "") != old]
                connection.executemany(f"UPDATE {LAYER} SET split = ? WHERE rowid = ?", changed)
        if not changed:
            return  # the same parts again leave the file as it is, to the byte
        _remove(path, _BESIDE)  # what SQLite keeps beside the old file would be applied to the new one
        replacing.replace(hidden, path)
    except (OSError, sqlite3.Error) as error:
        raise DataError(
            f"{path} cannot be written ({error}); close it in QGIS, see that the disk has space, and try again."
        ) from error
    finally:
        _remove(hidden, ("", *_BESIDE))


_ANEW = "let salakseg prepare write it anew, or divide without it: --by block, --by folder"


def _corners(geometry_M: NDArray[np.object_]) -> NDArray[np.float64]:
    """Four corners of each polygon, those of its envelope where it has more or fewer; NaN for none."""
    corner_M42 = np.full((len(geometry_M), 4, 2), np.nan)
    empty_M = shapely.is_missing(geometry_M) | shapely.is_empty(geometry_M)
    plain_M = ~empty_M & (shapely.get_type_id(geometry_M) == shapely.GeometryType.POLYGON)
    plain_M &= shapely.get_num_coordinates(geometry_M) == 5
    other_M = ~empty_M & ~plain_M
    west, south, east, north = shapely.bounds(geometry_M[other_M]).T
    corner_M42[other_M] = np.stack([[west, north], [east, north], [east, south], [west, south]]).transpose(2, 0, 1)
    corner_M42[plain_M] = shapely.get_coordinates(geometry_M[plain_M]).reshape(-1, 5, 2)[:, :4]
    return corner_M42


def _to_degrees(corner_M42: NDArray[np.float64], crs: Any, path: Path) -> NDArray[np.float64]:  # noqa: ANN401
    if crs is None:
        raise DataError(f"{path} has no coordinate reference system, so its places are unknown; {_ANEW}")
    try:
        transformer = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        x, y = transformer.transform(corner_M42[..., 0].ravel(), corner_M42[..., 1].ravel())
    except ProjError as error:
        raise DataError(f"{path}: its coordinates cannot be placed on the earth ({error}); {_ANEW}") from error
    degrees_M42 = np.stack([x, y], axis=-1).reshape(corner_M42.shape)
    lost = np.isfinite(corner_M42).all(axis=(1, 2)) & ~np.isfinite(degrees_M42).all(axis=(1, 2))
    if lost.any():
        raise DataError(f"{path}: {lost.sum()} patches lie where {crs.name} has no meaning; {_ANEW}")
    return degrees_M42


def _remove(path: Path, endings: Sequence[str]) -> None:
    for ending in endings:
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _define_geometry_functions(connection: sqlite3.Connection) -> None:
    """What the spatial index's triggers name; an update of a word calls none of them, but SQLite wants to know them."""
    stub: Callable[..., int] = lambda *_: 0  # noqa: E731
    for name in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
        connection.create_function(name, 1, stub)
