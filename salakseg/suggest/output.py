"""What comes out as files: a table, a split and a list of pictures for patches, a GeoPackage for orthomosaics."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from salakseg.classes import ClassMap
from salakseg.data.patches import PatchIndex, Photo
from salakseg.data.splits import Role, Split, labelled_meanwhile, write_split
from salakseg.errors import DataError
from salakseg.mapping.files import write_whole
from salakseg.replacing import replace
from salakseg.suggest.candidates import Candidates, Unit
from salakseg.suggest.choose import Chosen, top_classes
from salakseg.suggest.mosaics import MosaicSource
from salakseg.suggest.sources import PatchSource, Source

TABLE = "suggestions.csv"
LIST = "pictures.txt"
SPLIT = "splits.csv"
AREAS = "areas.gpkg"
LAYER = "areas"
"""Names of the files, and of the GeoPackage's only layer."""

_FIGURES = ("worth", "score", "high", "disagreement", "entropy", "unreliability", "rare")


def rows_of(chosen: Chosen, sources: Sequence[Source], class_map: ClassMap, unit: Unit) -> list[dict[str, Any]]:
    """The suggestions as plain values, best first.

    source is the folder or the orthomosaic; picture, row and column say which patch, tile or square of the photo it is
    and are empty where it is all of it. rank counts from 1; worth is what candidates are ranked by before their
    likeness counts; score and its parts are means from 0 to 1; high is the share of pixels whose score is among the
    highest tenth; rare the mean rarity of the expected classes; expected names the classes with the greatest mean
    probability.
    """
    found = chosen.found
    rows = []
    for rank, place in enumerate(chosen.places, start=1):
        values = {name: round(float(getattr(found, f"{name}_M")[place]), 4) for name in _FIGURES}
        expected = top_classes(found.prob_MK[place], class_map.names)
        about = {"pixels": int(found.pixels_M[place]), **values, "expected": expected}
        rows.append({"rank": rank, **_where(found, place, sources, unit), **about})
    return rows


def _where(found: Candidates, place: int, sources: Sequence[Source], unit: Unit) -> dict[str, Any]:
    number, base, row, col = found.key_M4[place].tolist()
    source = sources[number]
    where: dict[str, Any] = {"source": source.title, "photo": "", "picture": "", "row": row, "col": col}
    if unit == "patch":
        where["row"], where["col"] = source.place_N2[row].tolist()
    elif unit == "photo":
        where["row"] = where["col"] = ""
    if isinstance(source, PatchSource):
        photo = source.photos[base]
        where |= {"source": photo.folder, "photo": photo.name}
        if unit == "patch":
            where["picture"] = source.patches[row].image
    return where


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the table; the file appears only when whole."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def suggested_split(split: Split, photos: Sequence[Photo], index: PatchIndex) -> Split:
    """The split with some photos moved to the labelled part, for the training after they are labelled.

    So are unlabelled photos that have masks already, such as those of an earlier round. A patch of such a photo that
    has no mask yet is unlabelled for training as before, so nothing is lost meanwhile.
    """
    wanted = {*photos, *(patch.photo_key for patch in labelled_meanwhile(index, split.roles))}
    return Split({photo: Role.LABELLED if photo in wanted else role for photo, role in split.roles.items()})


def write_patch_lists(
    out: Path, source: PatchSource, pictures: Sequence[int], photos: Sequence[Photo], split: Split | None
) -> tuple[Path, Path | None]:
    """Writes which pictures to label, relative to the data root, and the split that takes them in.

    Args:
        out: Folder for the files.
        source: The patches.
        pictures: Numbers of the pictures.
        photos: Photos of the suggestions, or their blocks of ground.
        split: The split so far; None where there is none yet, so that training makes one when masks are there.

    Returns:
        The list, and the split if there is one.
    """
    paths = [source.index.image_path(source.patches[number]) for number in pictures]
    write_whole(out / LIST, "".join(f"{path.relative_to(source.index.root).as_posix()}\n" for path in paths))
    if split is None:
        return out / LIST, None
    write_split(suggested_split(split, photos, source.index), out / SPLIT)
    return out / LIST, out / SPLIT


def write_areas(
    path: Path,
    sources: Sequence[MosaicSource],
    side: int,
    squares: Sequence[tuple[int, int, int]],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Writes the areas of orthomosaics with all columns of the table.

    Args:
        path: The GeoPackage, which is replaced. Its reference system is the orthomosaics' own if they have one in
            common, else EPSG:4326.
        sources: The orthomosaics.
        side: Tiles in a row of an area.
        squares: Source, row and column of each suggestion, counted in areas.
        rows: See `rows_of`.

    Raises:
        DataError: It cannot be written.
    """
    systems = [source.mosaic.crs for source in sources]
    common = systems[0] if all(crs == systems[0] for crs in systems) else "EPSG:4326"
    geometry = []
    for number, row, col in squares:
        here = gpd.GeoSeries([sources[number].square(row, col, side)], crs=_text(systems[number]))
        geometry.append((here if systems[number] == common else here.to_crs(common))[0])
    columns = {name: [row[name] for row in rows] for name in rows[0] if name not in ("photo", "picture")}
    frame = gpd.GeoDataFrame(columns, geometry=geometry, crs=_text(common))
    hidden = path.with_name(f".partial-{path.name}")
    try:
        hidden.unlink(missing_ok=True)
        pyogrio.write_dataframe(frame, hidden, layer=LAYER, driver="GPKG", geometry_type="Polygon")
        for ending in ("-wal", "-shm", "-journal"):  # of the file that is replaced; SQLite would apply them to ours
            path.with_name(path.name + ending).unlink(missing_ok=True)
        replace(hidden, path)
    except (DataSourceError, DataLayerError, OSError) as error:
        raise DataError(
            f"{path} cannot be written ({error}); close it in QGIS, see that the disk has space."
        ) from error
    finally:
        hidden.unlink(missing_ok=True)


def _text(crs: Any) -> str | None:  # noqa: ANN401
    """A `rasterio.crs.CRS`, or a name, as what geopandas takes."""
    return crs if crs is None or isinstance(crs, str) else str(crs.to_wkt())
