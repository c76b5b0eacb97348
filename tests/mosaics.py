"""A prepared patch folder of mosaics, as `salakseg prepare` writes them, without its imagery: for tests of splits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

SIDE_PX = 32


def write_mosaic(
    root: Path,
    folder: str,
    source: str,
    transform: Affine,
    rows: int,
    cols: int,
    *,
    stride: int = SIDE_PX,
    labelled: float = 1.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Writes the patches of a mosaic and returns their rows of ``patches.gpkg``."""
    (root / folder / "images").mkdir(parents=True, exist_ok=True)
    (root / folder / "masks").mkdir(exist_ok=True)
    generator = np.random.default_rng([seed, *source.encode()])
    found = []
    for row in range(rows):
        for col in range(cols):
            name = f"{source}_patch_{row:03d}_{col:03d}.png"
            color = generator.integers(0, 256, 3)
            picture = np.full((SIDE_PX, SIDE_PX, 3), color, np.uint8)
            Image.fromarray(picture).save(root / folder / "images" / name)
            if generator.random() < labelled:
                label_HW = generator.choice([0, 1, 2, 3, 4, 5, 6], (SIDE_PX, SIDE_PX)).astype(np.uint8)
                Image.fromarray(label_HW).save(root / folder / "masks" / name)
            found.append(_row(folder, name, source, row, col, transform, stride))
    return found


def _row(folder: str, name: str, source: str, row: int, col: int, transform: Affine, stride: int) -> dict[str, Any]:
    left, top = col * stride, row * stride
    corners = [(left, top), (left, top + SIDE_PX), (left + SIDE_PX, top + SIDE_PX), (left + SIDE_PX, top)]
    return {
        "folder": folder, "image": name, "source": source, "row": row, "col": col, "split": "", "valid": 1.0,
        "labelled": 1.0, "geometry": shapely.Polygon([transform @ corner for corner in corners]),
    }  # fmt: skip


def write_gpkg(root: Path, rows: Sequence[dict[str, Any]], crs: str | None, **changes: Any) -> Path:
    """Writes ``patches.gpkg``."""
    path = root / "patches.gpkg"
    frame = gpd.GeoDataFrame([row | changes for row in rows], crs=crs)
    pyogrio.write_dataframe(frame, path, layer="patches", driver="GPKG")
    return path


def write_photo(path: Path, longitude: float, latitude: float, **told: Any) -> Path:
    """A JPEG with GPS, and with height, focal length, yaw and pitch where they are told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif.get_ifd(0x8825).update(
        {
            1: "S" if latitude < 0 else "N", 2: _sexagesimal(latitude),
            3: "W" if longitude < 0 else "E", 4: _sexagesimal(longitude),
        }
    )  # fmt: skip
    if "focal" in told:
        exif.get_ifd(0x8769)[0xA405] = told["focal"]
    if "direction" in told:
        exif.get_ifd(0x8825)[17] = told["direction"]
    names = {"height": "RelativeAltitude", "yaw": "GimbalYawDegree", "pitch": "GimbalPitchDegree"}
    tags = " ".join(f'drone-dji:{name}="{told[key]:+.2f}"' for key, name in names.items() if key in told)
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {tags}/></x:xmpmeta>'.encode()
    Image.new("RGB", told.get("size", (40, 30)), (90, 120, 60)).save(path, exif=exif, xmp=xmp)
    return path


def _sexagesimal(degrees: float) -> tuple[float, float, float]:
    whole, rest = divmod(abs(degrees), 1)
    minutes, rest = divmod(rest * 60, 1)
    return whole, minutes, round(rest * 60, 6)


def polygons(path: Path, crs: str) -> Iterator[tuple[str, str, str, Any]]:
    """Folder, image, split and polygon of each patch in another coordinate reference system."""
    frame = pyogrio.read_dataframe(path, layer="patches").to_crs(crs)
    yield from zip(frame["folder"], frame["image"], frame["split"], frame.geometry, strict=True)


def nearest(one: Sequence[Any], other: Sequence[Any]) -> float:
    """Least distance between the polygons of two parts."""
    tree = shapely.STRtree(list(other))
    _, distance = tree.query_nearest(list(one), return_distance=True)
    distances: NDArray[np.float64] = distance
    return float(distances.min())
