"""A map that a person has corrected goes back into training: the whole walk, by its commands."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from helpers import TINY, command
from rasterio.features import shapes
from rasterio.transform import from_origin
from shapely.geometry import box, shape

from salakseg.classes import SALAK
from salakseg.data.patches import index_patches
from salakseg.data.scene import make_scene
from salakseg.data.splits import Role, read_roles, read_split
from salakseg.errors import DataError
from salakseg.prepare.parts.extending import extend_split

SIDE, PIXEL = 256, 0.1
UTM = "EPSG:32749"


def write_farm(folder: Path, name: str, seed: int, west: float) -> None:
    """A mosaic, and its true classes as polygons."""
    scene = make_scene(seed, SIDE, SIDE)
    place = from_origin(west, 9160000, PIXEL, PIXEL)
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": SIDE, "width": SIDE, "crs": UTM}
    with rasterio.open(folder / f"{name}.tif", "w", transform=place, **profile) as file:
        file.write(scene.image_HWC.transpose(2, 0, 1))
    found = shapes(scene.label_HW, mask=scene.label_HW != 255, transform=place)
    rows = [{"class_name": SALAK.names[int(value)], "geometry": shape(drawn)} for drawn, value in found]
    geopandas.GeoDataFrame(rows, crs=UTM).to_file(folder / f"{name}.gpkg")


@pytest.fixture
def farms(tmp_path: Path) -> Path:
    """Two farms far apart; the first one is cut into patches."""
    write_farm(tmp_path, "old", 0, 430000)
    write_farm(tmp_path, "new", 1, 432000)
    command("prepare", "old.tif", "--labels", "old.gpkg", "--out", "patches", "--patch", 32, cwd=tmp_path)
    return tmp_path


def test_a_corrected_map_back_into_training(farms: Path) -> None:
    flags = ["--recipe", "quick", "--data-root", "patches", *TINY[:10], "--batch-size", 2, "--warmup-iters", 2]
    flags += ["--num-steps", 4, "--set", "evaluation.every=4", "--device", "cpu"]
    command("train", *flags, "--checkpoint-dir", "runs/before", cwd=farms)
    made = ["--model", "runs/before", "--polygons", "map.gpkg", "--min-area", 0, "--device", "cpu"]
    command("predict", "new.tif", "--out", "map.tif", *made, cwd=farms)
    # What is done in QGIS: classes of some polygons are chosen anew, and the area that was looked at is drawn
    corrected = geopandas.read_file(farms / "map.gpkg")
    west, _, _, north = corrected.total_bounds
    area = box(west, north - 12.8, west + 12.8, north)
    corrected.loc[corrected.intersects(area), "class_name"] = "Jalan"
    corrected.to_file(farms / "corrected.gpkg")
    geopandas.GeoDataFrame({"by": ["me"]}, geometry=[area], crs=UTM).to_file(farms / "area.gpkg")
    labels = ["--labels", "corrected.gpkg", "--reviewed", "area.gpkg"]
    told = command("prepare", "new.tif", *labels, "--out", "patches", "--patch", 32, cwd=farms).output
    assert "splits extend" in " ".join(told.split())
    before = read_roles(farms / "patches" / "splits.csv")
    command("splits", "extend", "patches", cwd=farms)
    index = index_patches(farms / "patches")
    split = read_split(farms / "patches" / "splits.csv", index)
    assert {photo: split.roles[photo] for photo in before} == before
    new = [patch for patch in split.patches(index, Role.LABELLED) if patch.photo_key not in before]
    assert len(new) == 16  # of 64 patches those in the area
    masks = [rasterio.open(index.root / patch.folder / "masks" / str(patch.mask)).read(1) for patch in new]
    assert (np.stack(masks) == SALAK.names.index("Jalan")).all()
    command("train", *flags, "--init", "runs/before", "--checkpoint-dir", "runs/after", cwd=farms)
    command("report", "runs/after", "runs/before", "--device", "cpu", cwd=farms)
    report = json.loads((farms / "runs" / "after" / "report" / "report.json").read_text())
    assert "before" in json.dumps(report)


def test_what_lies_near_a_held_out_part_is_used_nowhere(farms: Path) -> None:
    root = farms / "patches"
    roles = read_roles(root / "splits.csv")
    val = next(photo for photo, role in roles.items() if role is Role.VAL)
    index = index_patches(root)
    held_out = [patch for patch in index.patches if patch.photo_key == val]
    # The lines of a part that was training, and of the gap around a held-out one, are lost
    lines = (root / "splits.csv").read_text().splitlines()
    kept = [line for line in lines if line.rpartition(",")[2] not in ("labelled", "gap")]
    (root / "splits.csv").write_text("\n".join(kept) + "\n")
    extended = extend_split(root)
    assert extended.joined > 0
    assert extended.unused > 0
    assert extended.ground is not None
    again = read_split(root / "splits.csv", index_patches(root))
    box_N4, roles_N = extended.ground.box_N4, [again.roles[patch.photo_key] for patch in extended.index.patches]
    of_val = next(n for n, patch in enumerate(extended.index.patches) if patch.stem == held_out[0].stem)
    for n, role in enumerate(roles_N):
        apart = np.maximum(box_N4[n, :2] - box_N4[of_val, 2:], box_N4[of_val, :2] - box_N4[n, 2:]).max()
        if role is Role.LABELLED:
            assert apart > 32 * PIXEL - 0.01


def test_photos_join_but_for_the_neighbours_of_held_out_ones(clean_set: Path, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "patches"
    shutil.copytree(clean_set, root)
    lines = (root / "splits.csv").read_text().splitlines()
    kept = [line for line in lines if not line.endswith((",gap", ",labelled", ",unlabelled"))]
    lost = len(lines) - len(kept)
    assert lost
    (root / "splits.csv").write_text("\n".join(kept) + "\n")
    extended = extend_split(root, gap=1)
    assert extended.ground is None
    photos = [
        role for photo, role in extended.split.roles.items() if role in (Role.GAP, Role.LABELLED, Role.UNLABELLED)
    ]
    assert len(photos) == lost
    assert Role.LABELLED in photos
    assert extended.unused > 0
    assert (extend_split(root).joined, extend_split(root).unused) == (0, 0)
    (root / "splits.csv").unlink()
    with pytest.raises(DataError, match="make a split with"):
        extend_split(root)
