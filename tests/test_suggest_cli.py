"""``salakseg suggest`` as a user runs it."""

import csv
import re
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from helpers import command, write_patch
from PIL import Image
from rasterio.transform import from_origin
from shapely.geometry import Point, box
from shapely.geometry.base import BaseGeometry

from salakseg.data.patches import index_patches
from salakseg.data.splits import Role, Split, read_split, write_split
from salakseg.suggest.sources import PatchSource


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_patches_of_a_folder(untrained_checkpoint: Path, plantation: Path, tmp_path: Path) -> None:
    root, model = tmp_path / "patches", untrained_checkpoint
    shutil.copytree(plantation, root)
    for mask in sorted((root / "salak-1-2" / "masks").iterdir())[1:]:
        mask.unlink()
    index = index_patches(root)
    photos = list(index.photos())  # twelve of the first folder, all labelled, twelve of the second, one labelled
    roles = [Role.LABELLED] * 8 + [Role.GAP] * 2 + [Role.VAL] * 2 + [Role.LABELLED] + [Role.UNLABELLED] * 11
    before = Split(dict(zip(photos, roles, strict=True)))
    write_split(before, root / "splits.csv")
    done = command("suggest", root, "--model", model, "-n", 3, "--gap", 0, "--device", "cpu")
    rows = table(root / "suggest" / "suggestions.csv")
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert "salakseg train --splits" in done.output
    pictures = (root / "suggest" / "pictures.txt").read_text().split()
    assert len(pictures) == 3
    assert all((root / picture).is_file() for picture in pictures)
    # the list goes straight into training: the photos are labelled as soon as masks are there
    after = read_split(root / "suggest" / "splits.csv", index)
    chosen = {photo for photo in before.roles if before.roles[photo] is not after.roles[photo]}
    assert {(photo.folder, photo.name) for photo in chosen} == {(row["source"], row["photo"]) for row in rows}
    assert {before.roles[photo] for photo in chosen} == {Role.UNLABELLED}
    with Image.open(root / "suggest" / "sheet-1.png") as sheet:
        assert sheet.format == "PNG"
        assert len(np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0)) > 100

    refused = command("suggest", root, "--model", model, "-n", 3, "--gap", 0, status=1)
    assert "--overwrite" in refused.output
    shutil.copytree(root / "suggest", tmp_path / "only")
    for name in ("suggestions.csv", "pictures.txt"):  # the split is as dear
        (tmp_path / "only" / name).unlink()
    refused = command("suggest", root, "--model", model, "--gap", 0, "--out", tmp_path / "only", status=1)
    assert "splits.csv exists" in " ".join(refused.output.split())
    was = (root / "splits.csv").read_bytes()
    refused = command("suggest", root, "--model", model, "-n", 3, "--out", root, "--overwrite", status=1)
    assert "holds the patches, whose split would be replaced" in " ".join(refused.output.split())
    assert (root / "splits.csv").read_bytes() == was

    # a second round, when these have masks: they are not suggested again, and stay in the labelled part
    for picture in pictures:
        mask = root / picture.replace("/images/", "/masks/")
        Image.fromarray(np.ones(Image.open(root / picture).size[::-1], np.uint8)).save(mask)
    command("suggest", root, "--model", model, "-n", 3, "--gap", 0, "--device", "cpu", "--overwrite")
    assert not set(pictures) & set((root / "suggest" / "pictures.txt").read_text().split())
    second = read_split(root / "suggest" / "splits.csv", index_patches(root))
    assert {second.roles[photo] for photo in chosen} == {Role.LABELLED}
    assert len(set(second.roles.items()) - set(before.roles.items())) == 6
    nothing = command("suggest", root, "--model", model, "--gap", 99, "--overwrite", status=1)
    assert "nothing is left to suggest" in nothing.output


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two strange objects, noise and stripes, on a smooth field of 8 x 8 tiles; a corner is not valid."""
    path = tmp_path_factory.mktemp("mosaic") / "field.tif"
    generator = np.random.default_rng(1)
    side = 8 * 128
    image_CHW = np.full((3, side, side), 128, np.int16) + generator.integers(-3, 4, (3, side, side))
    stripes_CHW = np.broadcast_to(np.where(np.arange(100) // 10 % 2, 250, 5), (3, 100, 100))
    for (row, col), object_CHW in zip(STRANGE, (generator.integers(1, 255, (3, 100, 100)), stripes_CHW), strict=True):
        image_CHW[:, row : row + 100, col : col + 100] = object_CHW
    image_CHW[:, :256, :256] = 0
    profile = {"crs": "EPSG:32749", "transform": from_origin(430000, 9160000, 0.05, 0.05), "nodata": 0}
    with rasterio.open(path, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8", **profile) as file:
        file.write(image_CHW.astype(np.uint8))
    return path


STRANGE = ((400, 700), (782, 142))
"""Row and column of the upper left corner of each strange object, pixels."""


def middle(row: int, col: int) -> Point:
    return Point(430000 + (col + 50) * 0.05, 9160000 - (row + 50) * 0.05)


def draw(shapes: list[BaseGeometry], path: Path) -> None:
    gpd.GeoDataFrame(geometry=shapes, crs="EPSG:32749").to_crs("EPSG:4326").to_file(path)


def test_areas_of_an_orthomosaic_lie_on_what_is_strange(
    mosaic: Path, untrained_checkpoint: Path, tmp_path: Path
) -> None:
    arguments = (
        "suggest",
        mosaic,
        "--model",
        untrained_checkpoint,
        "--area",
        6.4,
        "--tile",
        128,
        "--cache",
        tmp_path / "c",
    )
    field = box(430020, 9159998, 430026, 9159999)  # some of the smooth field is labelled
    draw([field], tmp_path / "field.gpkg")
    command(*arguments, "-n", 2, "--out", tmp_path / "one", "--labelled", tmp_path / "field.gpkg")
    areas = gpd.read_file(tmp_path / "one" / "areas.gpkg", layer="areas")
    assert areas.crs == "EPSG:32749"
    assert areas["rank"].tolist() == [1, 2]
    assert areas.geometry.area.round(2).tolist() == [40.96, 40.96]
    for object_at in STRANGE:
        assert areas.contains(middle(*object_at)).sum() == 1

    draw([box(440000, 9159998, 440006, 9159999)], tmp_path / "elsewhere.gpkg")
    result = command(*arguments, "-n", 2, "--out", tmp_path / "far", "--labelled", tmp_path / "elsewhere.gpkg")
    assert "lies on none of the orthomosaics given, so nothing counts as labelled" in " ".join(result.output.split())

    # what is labelled already, in another reference system, is not suggested again
    draw([field, middle(*STRANGE[0]).buffer(3)], tmp_path / "labels.gpkg")
    command(*arguments, "-n", 2, "--out", tmp_path / "two", "--labelled", tmp_path / "labels.gpkg")
    areas = gpd.read_file(tmp_path / "two" / "areas.gpkg", layer="areas")
    assert not areas.contains(middle(*STRANGE[0])).any()
    assert areas.contains(middle(*STRANGE[1])).sum() == 1

    # prepare takes the areas for what was reviewed
    ground = gpd.GeoDataFrame({"class": ["Bangunan"]}, geometry=[box(429999, 9159900, 430100, 9160001)], crs=areas.crs)
    ground.to_file(tmp_path / "drawn.gpkg")
    reviewed = tmp_path / "two" / "areas.gpkg"
    out = tmp_path / "patches"
    labels_given = ("--labels", tmp_path / "drawn.gpkg", "--reviewed", reviewed)
    command("prepare", mosaic, "--out", out, "--patch", 128, *labels_given)
    masks = sorted((out / mosaic.parent.name / "masks").glob("*.png"))
    assert len(masks) == 2
    assert all((np.asarray(Image.open(mask)) == 2).all() for mask in masks)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["patches", "--bands", "3,2,1"], "are for orthomosaics; patches are taken as they are"),
        (["patches", "--gsd", "0.1"], "are for orthomosaics; patches are taken as they are"),
        (["patches", "--labelled", "areas.gpkg"], "are for orthomosaics; patches are taken as they are"),
        (["field.tif", "--gap", "3"], "--splits and --gap are for patches"),
        (["field.tif", "--splits", "splits.csv"], "--splits and --gap are for patches"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(
    untrained_checkpoint: Path, tmp_path: Path, flags: list[str], reason: str
) -> None:
    write_patch(tmp_path / "patches", "site", "DJI_0001.png", np.zeros((70, 100), np.uint8), labelled=False)
    done = command("suggest", *flags, "--model", untrained_checkpoint, cwd=tmp_path, status=2)
    assert reason in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.output).split())


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_looked_at(
    untrained_checkpoint: Path, tmp_path: Path
) -> None:
    write_patch(tmp_path / "patches", "site", "DJI_0001.png", np.zeros((70, 100), np.uint8), labelled=False)
    (tmp_path / "file").touch()
    flags = ["--out", tmp_path / "file" / "next", "--cache", tmp_path / "cache", "--model", untrained_checkpoint]
    done = command("suggest", tmp_path / "patches", *flags, status=1)
    assert "name another folder with --out" in " ".join(done.output.split())
    assert not (tmp_path / "cache").exists()


def test_patches_that_overlap_lie_less_than_their_side_apart(tmp_path: Path) -> None:
    profile = {"driver": "GTiff", "count": 3, "height": 128, "width": 128, "dtype": "uint8", "crs": "EPSG:32749"}
    with rasterio.open(tmp_path / "o.tif", "w", transform=from_origin(430000, 9160000, 0.1, 0.1), **profile) as file:
        file.write(np.random.default_rng(0).integers(1, 255, (3, 128, 128)).astype(np.uint8))
    for name, stride, step in (("beside", 32, 3.2), ("over", 16, 1.6)):
        command("prepare", tmp_path / "o.tif", "--out", tmp_path / name, "--patch", 32, "--stride", stride)
        source = PatchSource(index_patches(tmp_path / name), None, 64)
        assert source.side_m == pytest.approx(3.2, rel=1e-2)
        assert source.step_m == pytest.approx(step, rel=1e-2)
