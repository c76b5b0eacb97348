"""``ROOT/patches.gpkg``: where every patch lies, and how much of it is valid and labelled. It opens in QGIS.

Layer ``patches``, a polygon for each patch: the ground it covers, what sticks out beyond the raster included. Its
columns are folder, image (file name), source, row, col, split (empty until a split is made), and as shares of all the
patch's pixels from 0 to 1: valid, labelled, and one for each class by its name. The coordinate reference system is that
of the sources if they have one in common, else EPSG:4326. Patches of photos, and of rasters without a coordinate
reference system, lie nowhere and are not in it; a root of those alone has no such file.

Axes: N patches, K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS

from salakseg import replacing
from salakseg.classes import ClassMap
from salakseg.errors import DataError
from salakseg.prepare.finding import SourceFile
from salakseg.prepare.grid import Grid
from salakseg.prepare.labelling.placing import project
from salakseg.prepare.record import StripRecord
from salakseg.prepare.windows import patch_stem

FILE_NAME = "patches.gpkg"
LAYER = "patches"
COLUMNS = ("folder", "image", "source", "row", "col", "split", "valid", "labelled")

_TAKEN = {*COLUMNS, "fid", "geom", "geometry"}
_BATCH = 50_000  # patches written at a time


@dataclass(frozen=True, slots=True, eq=False)
class CutSource:
    """A finished source's patches as columns.

    Attributes:
        file: The source's names.
        grid: Its pixels.
        patch: Side of its patches.
        stride: Pixels from one to the next.
        row_N: Rows, int32.
        col_N: Columns, int32.
        valid_N: Valid pixels, int64.
        class_NK: Labelled pixels by class, int64.
        mask_N: Which have a mask.
        bytes: Size of their files together.
        left_out: Positions without a patch.
        lost_px: Labelled pixels at them.
    """

    file: SourceFile
    grid: Grid
    patch: int
    stride: int
    row_N: NDArray[np.int32]
    col_N: NDArray[np.int32]
    valid_N: NDArray[np.int64]
    class_NK: NDArray[np.int64]
    mask_N: NDArray[np.bool_]
    bytes: int
    left_out: int
    lost_px: int

    @classmethod
    def of(
        cls, file: SourceFile, made_from: Mapping[str, Any], strips: Sequence[StripRecord], classes: int
    ) -> "CutSource":
        """The patches of a record.

        Raises:
            KeyError, ValueError: It is no record of ours.
        """
        patches = [patch for record in strips for patch in record.patches]
        class_NK = np.zeros((len(patches), classes), np.int64)
        for n, patch in enumerate(patches):
            for class_id, pixels in patch.class_px.items():
                class_NK[n, class_id] = pixels
        grid = made_from["grid"]
        crs = None if grid["crs"] is None else CRS.from_wkt(grid["crs"])
        return cls(
            file=file,
            grid=Grid(grid["height"], grid["width"], Affine(*grid["transform"]), crs),
            patch=made_from["patch"],
            stride=made_from["stride"],
            row_N=np.array([patch.row for patch in patches], np.int32),
            col_N=np.array([patch.col for patch in patches], np.int32),
            valid_N=np.array([patch.valid_px for patch in patches], np.int64),
            class_NK=class_NK,
            mask_N=np.array([patch.mask is not None for patch in patches], np.bool_),
            bytes=sum(patch.image.size + (patch.mask.size if patch.mask else 0) for patch in patches),
            left_out=sum(record.left_out for record in strips),
            lost_px=sum(record.lost_px for record in strips),
        )

    def footprints(self, crs: Any) -> NDArray[np.object_]:  # noqa: ANN401
        """The ground that each patch covers, polygons [N] in another coordinate reference system.

        Raises:
            DataError: It has no place there.
        """
        row_N5 = (self.row_N[:, None] * self.stride) + self.patch * np.array([0, 1, 1, 0, 0])
        col_N5 = (self.col_N[:, None] * self.stride) + self.patch * np.array([0, 0, 1, 1, 0])
        to = self.grid.transform
        x_N5, y_N5 = to.a * col_N5 + to.b * row_N5 + to.c, to.d * col_N5 + to.e * row_N5 + to.f
        points_N52 = np.stack([x_N5, y_N5], axis=-1)
        if self.grid.crs != crs and len(self.row_N):
            points_N52 = project(points_N52.reshape(-1, 2), self.grid.crs, crs).reshape(points_N52.shape)
            if not np.isfinite(points_N52).all():
                raise DataError(
                    f"{self.file} lies where its reference system has no coordinates on the globe, so that its place "
                    "among the other sources is not known; mend its georeference, or cut it into an --out of its own."
                )
        polygons: NDArray[np.object_] = shapely.orient_polygons(shapely.polygons(points_N52))
        return polygons


def class_columns(class_map: ClassMap) -> tuple[str, ...]:
    """The columns of the classes: their names, with " (class)" behind one that a column of another meaning has."""
    taken = {name.casefold() for name in class_map.names}

    def column(name: str) -> str:
        if name.casefold() not in _TAKEN:
            return name
        while (name := f"{name} (class)").casefold() in taken:
            pass
        return name

    return tuple(map(column, class_map.names))


def write_index(root: Path, sources: Sequence[CutSource], class_map: ClassMap) -> bool:
    """Writes the index; the split of patches that were in it before is kept.

    Args:
        root: The data root.
        sources: All its sources.
        class_map: The K classes.

    Returns:
        Whether any patch has a place. Where none has, there is no such file afterwards.

    Raises:
        DataError: The file cannot be written.
    """
    path = root / FILE_NAME
    placed = [source for source in sources if source.grid.crs is not None and len(source.row_N)]
    if not placed:
        path.unlink(missing_ok=True)
        return False
    crs = placed[0].grid.crs
    if any(source.grid.crs != crs for source in placed):
        crs = CRS.from_epsg(4326)
    splits = _splits(path)
    hidden = path.with_name(f".{FILE_NAME}")  # the driver knows a GeoPackage by its ending
    try:
        _remove(hidden)
        with _timeless():
            for batch in _batches(placed):
                frame = _table(batch, class_map, crs, splits)
                pyogrio.write_dataframe(
                    frame, hidden, layer=LAYER, driver="GPKG", geometry_type="Polygon", append=hidden.exists()
                )
        written = pyogrio.read_info(hidden, layer=LAYER)["features"]  # a full disk can go unnoticed
        if written != sum(len(source.row_N) for source in placed):
            raise DataError(f"{path} could not be written completely; is the disk full?")
        _remove(path, but=path)  # what SQLite keeps beside the file that is replaced would be applied to ours
        replacing.replace(hidden, path)
    except (DataSourceError, DataLayerError, OSError) as error:
        raise DataError(
            f"{path} cannot be written ({error}); close it in QGIS, see that the disk has space."
        ) from error
    finally:
        _remove(hidden)
    return True


def _table(
    sources: Sequence[CutSource],
    class_map: ClassMap,
    crs: Any,  # noqa: ANN401
    splits: Mapping[tuple[str, str], str],
) -> Any:  # noqa: ANN401
    names = [
        (source.file.folder, f"{patch_stem(source.file.name, row, col)}.png", source.file.name)
        for source in sources
        for row, col in zip(source.row_N, source.col_N, strict=True)
    ]
    pixels_N = np.concatenate([np.full(len(source.row_N), source.patch**2) for source in sources])
    class_NK = np.concatenate([source.class_NK for source in sources]) / pixels_N[:, None]
    columns: dict[str, Any] = {
        "folder": [folder for folder, _, _ in names],
        "image": [image for _, image, _ in names],
        "source": [name for _, _, name in names],
        "row": np.concatenate([source.row_N for source in sources]),
        "col": np.concatenate([source.col_N for source in sources]),
        "split": [splits.get((folder, image), "") for folder, image, _ in names],
        "valid": np.concatenate([source.valid_N for source in sources]) / pixels_N,
        "labelled": class_NK.sum(axis=1),
        **dict(zip(class_columns(class_map), class_NK.T, strict=True)),
    }
    geometry = np.concatenate([source.footprints(crs) for source in sources])
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=crs.to_wkt())


def _batches(sources: Sequence[CutSource]) -> Iterator[list[CutSource]]:
    batch: list[CutSource] = []
    for source in sources:
        batch.append(source)
        if sum(len(one.row_N) for one in batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _splits(path: Path) -> dict[tuple[str, str], str]:
    try:
        old = pyogrio.read_dataframe(path, layer=LAYER, columns=["folder", "image", "split"], read_geometry=False)
        return {
            (folder, image): split
            for folder, image, split in zip(old.folder, old.image, old.split, strict=True)
            if split
        }
    except (DataSourceError, DataLayerError, AttributeError):
        return {}  # there is none, or it is no index of ours: splits.csv tells the splits all the same


@contextmanager
def _timeless() -> Iterator[None]:
    """Keeps the clock out of the file, so that the same patches give the same bytes."""
    option = "OGR_CURRENT_DATE"
    before = pyogrio.get_gdal_config_option(option)
    pyogrio.set_gdal_config_options({option: "2000-01-01T00:00:00.000Z"})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({option: before})


def _remove(path: Path, but: Path | None = None) -> None:
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
        if file != but:
            file.unlink(missing_ok=True)
