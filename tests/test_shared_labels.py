"""Two flights with photos of the same names: no mask may label both."""

import json
from pathlib import Path

import numpy as np
import pytest
from cutting import UTM_SOUTH, random_image, random_label, write_mosaic, write_photo
from helpers import command
from label_files import write_shapes
from PIL import Image
from shapely import box

from salakseg.classes import SALAK
from salakseg.data.masks import read_mask

SIDE = 64
FLIGHTS = ("flight 1", "flight 2")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [write_photo(tmp_path / name / "DJI_0001.JPG", random_image(SIDE, SIDE)) for name in FLIGHTS]


def save_mask(path: Path, seed: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_label(SIDE, SIDE, 1.0, seed)).save(path)


def prepared(tmp_path: Path, *sources: Path, labels: str, status: int = 0) -> str:
    flags = "--labels", tmp_path / labels, "--out", tmp_path / "root", "--patch", 32
    done = command("prepare", *sources, *flags, status=status)
    return " ".join(done.output.split())


def test_a_mask_of_two_photos_is_refused(tmp_path: Path, photos: list[Path]) -> None:
    save_mask(tmp_path / "masks" / "DJI_0001.png")
    told = prepared(tmp_path, *photos, labels="masks", status=1)
    assert "DJI_0001.png would label both" in told and "folders that are named as those of the sources" in told
    assert not (tmp_path / "root").exists()
    prepared(tmp_path, photos[0], labels="masks")


def test_masks_in_folders_of_the_flights_are_told_apart(tmp_path: Path, photos: list[Path]) -> None:
    for seed, name in enumerate(FLIGHTS):
        save_mask(tmp_path / "masks" / name / "DJI_0001.png", seed)
    prepared(tmp_path, *photos, labels="masks")
    for seed, name in enumerate(FLIGHTS):
        path = tmp_path / "root" / name / "masks" / "DJI_0001_patch_000_000.png"
        np.testing.assert_array_equal(read_mask(path, SALAK).label_HW, random_label(SIDE, SIDE, 1.0, seed)[:32, :32])


@pytest.mark.parametrize("entries", [["DJI_0001.JPG"], ["flight 1/DJI_0001.JPG"], ["flight 1/DJI_0001.JPG"] * 2])
def test_an_entry_of_two_photos_is_refused(tmp_path: Path, photos: list[Path], entries: list[str]) -> None:
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(entries)],
        "categories": [{"id": 1, "name": "Jalan"}],
        "annotations": [{"image_id": 0, "category_id": 1, "segmentation": [[0, 0, 60, 0, 60, 60]]}],
    }
    if len(entries) > 1:
        content["images"][1]["file_name"] = "flight 2/DJI_0001.JPG"
    (tmp_path / "coco.json").write_text(json.dumps(content))
    told = prepared(tmp_path, *photos, labels="coco.json", status=len(entries) == 1)
    assert ("would label both" in told) == (len(entries) == 1)


def test_a_labelme_file_of_two_photos_is_refused(tmp_path: Path, photos: list[Path]) -> None:
    shape = {"label": "Jalan", "points": [[0, 0], [60, 0], [60, 60]]}
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "DJI_0001.json").write_text(json.dumps({"shapes": [shape]}))
    assert "would label both" in prepared(tmp_path, *photos, labels="labels", status=1)


@pytest.mark.parametrize("suffix", [".gpkg", ".tif"])
def test_what_lies_on_the_ground_may_label_many(tmp_path: Path, suffix: str) -> None:
    mosaics = [write_mosaic(tmp_path / name / "odm_orthophoto.tif", random_image(SIDE, SIDE)) for name in FLIGHTS]
    labels = tmp_path / "labels" / f"odm_orthophoto{suffix}"
    labels.parent.mkdir()
    if suffix == ".gpkg":
        left, top = UTM_SOUTH.c, UTM_SOUTH.f
        write_shapes(labels, [box(left, top - 2, left + 2, top)])
    else:
        write_mosaic(labels, random_label(SIDE, SIDE)[None])
    prepared(tmp_path, *mosaics, labels="labels")
    assert len(list((tmp_path / "root").glob("*/masks/*.png"))) > 4


def test_polygons_in_pixels_of_two_photos_are_refused(tmp_path: Path, photos: list[Path]) -> None:
    (tmp_path / "drawn").mkdir()
    write_shapes(tmp_path / "drawn" / "DJI_0001.gpkg", [box(0, 0, 40, 40)], crs=None)
    told = prepared(tmp_path, *photos, labels="drawn", status=1)
    assert "DJI_0001.gpkg would label both" in told
    prepared(tmp_path, photos[0], labels="drawn")
