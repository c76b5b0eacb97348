"""Where photos were taken and what ground they show."""

import math
from pathlib import Path

import numpy as np
import pytest
from mosaics import write_photo
from PIL import Image

from salakseg.data.patches import Photo, index_patches
from salakseg.errors import DataError
from salakseg.prepare.parts.exif import read_shot
from salakseg.prepare.parts.photo_places import find_photos, photo_footprints
from salakseg.prepare.parts.planes import place_on_planes

# A 24 mm lens (for 35 mm film) at 100 m: 43.27 / 24 x 100 m from corner to corner
DIAGONAL_M = 100 * math.hypot(36, 24) / 24


@pytest.mark.parametrize(("longitude", "latitude"), [(110.4321987, -7.6543219), (-3.5, 5.25), (179.999, 0.001)])
def test_a_place_is_read_to_a_centimetre(tmp_path: Path, longitude: float, latitude: float) -> None:
    shot = read_shot(write_photo(tmp_path / "a.jpg", longitude, latitude, height=80.1, focal=24, yaw=-30, pitch=-89.9))
    assert shot is not None
    assert (shot.longitude, shot.latitude) == pytest.approx((longitude, latitude), abs=1e-7)
    assert (shot.height_m, shot.focal_35mm, shot.yaw_degrees) == (80.1, 24, -30)
    assert shot.tilt_degrees == pytest.approx(0.1)


def test_dji_tags_may_be_elements(tmp_path: Path) -> None:
    xmp = b"<rdf:Description><drone-dji:RelativeAltitude>+55.5</drone-dji:RelativeAltitude></rdf:Description>"
    path = write_photo(tmp_path / "a.jpg", 110, -7)
    with Image.open(path) as picture:
        picture.save(tmp_path / "b.jpg", exif=picture.getexif(), xmp=xmp)
    shot = read_shot(tmp_path / "b.jpg")
    assert shot is not None and shot.height_m == 55.5


def test_a_photo_that_lies_nowhere(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    assert read_shot(tmp_path / "plain.png") is None
    assert read_shot(write_photo(tmp_path / "nofix.jpg", 0.0, 0.0)) is None
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe1 no photo")
    with pytest.raises(DataError, match=r"broken.jpg is no readable photo"):
        read_shot(tmp_path / "broken.jpg")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_damaged_data_tells_no_place(tmp_path: Path, suffix: str) -> None:
    with Image.open(write_photo(tmp_path / "whole.jpg", 110, -7)) as picture:
        whole = picture.getexif().tobytes()
    path = tmp_path / f"a{suffix}"
    for place in range(len(whole)):
        for damaged in (whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]):
            Image.new("RGB", (8, 8)).save(path, exif=damaged)
            shot = read_shot(path)
            assert shot is None or abs(shot.latitude) <= 90


def test_the_ground_is_as_large_as_height_and_lens_have_it(tmp_path: Path) -> None:
    level = {"height": 100.0, "focal": 24, "pitch": -90.0, "size": (40, 30)}
    straight = read_shot(write_photo(tmp_path / "a.jpg", 110, -7, yaw=0.0, **level))
    assert straight is not None
    corners = straight.outline()
    assert corners is not None
    assert np.ptp(corners, axis=0) == pytest.approx([DIAGONAL_M * 0.8, DIAGONAL_M * 0.6])
    turned = read_shot(write_photo(tmp_path / "b.jpg", 110, -7, yaw=90.0, **level))
    assert turned is not None
    outline = turned.outline()
    assert outline is not None
    assert np.ptp(outline, axis=0) == pytest.approx([DIAGONAL_M * 0.6, DIAGONAL_M * 0.8])
    assert outline[0] == pytest.approx([DIAGONAL_M * 0.3, DIAGONAL_M * 0.4])  # looks east: upper left is north-east
    unknown = read_shot(write_photo(tmp_path / "c.jpg", 110, -7, **level))
    assert unknown is not None
    around = unknown.outline()
    assert around is not None
    assert np.ptp(around, axis=0) == pytest.approx([DIAGONAL_M, DIAGONAL_M])
    said = unknown.outline(footprint_m=50)
    assert said is not None
    assert np.ptp(said, axis=0) == pytest.approx([50, 50])


def test_the_direction_of_exif_counts_where_dji_tells_none(tmp_path: Path) -> None:
    shot = read_shot(write_photo(tmp_path / "a.jpg", 110, -7, direction=45.0))
    assert shot is not None and shot.yaw_degrees == 45.0


def test_a_camera_that_leans_sees_further(tmp_path: Path) -> None:
    shot = read_shot(write_photo(tmp_path / "a.jpg", 110, -7, height=100.0, focal=50, pitch=-70.0))
    assert shot is not None
    outline = shot.outline()
    assert outline is not None
    reach = 100 * math.tan(math.radians(20) + math.atan(math.hypot(36, 24) / 100))
    assert np.ptp(outline, axis=0) == pytest.approx([2 * reach, 2 * reach])
    aslant = read_shot(write_photo(tmp_path / "b.jpg", 110, -7, height=100.0, focal=24, pitch=-30.0))
    assert aslant is not None and aslant.outline() is None


# ---- photos of patches


def write_patches(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    return root


def test_photos_are_found_by_stem_and_by_the_flights_folder(tmp_path: Path) -> None:
    root = write_patches(
        tmp_path / "patches",
        "f1/images/DJI_0001_patch_000_000.png",
        "f1/images/DJI_0001_patch_000_001.png",
        "f1/images/DJI_0002_patch_000_000.png",
        "f2/images/DJI_0001_patch_000_000.png",
        "f2/images/DJI_0003_patch_000_000.png",
    )
    photos = tmp_path / "my photos"
    for name in ("f1/DJI_0001.JPG", "f2/DJI_0001.tif", "DJI_0002.JPG", "f1/DJI_0003.JPG"):
        write_photo(photos / name, 110, -7)
    assert find_photos(index_patches(root), photos) == {
        Photo("f1", "DJI_0001"): photos / "f1/DJI_0001.JPG",
        Photo("f2", "DJI_0001"): photos / "f2/DJI_0001.tif",
        Photo("f1", "DJI_0002"): photos / "DJI_0002.JPG",
        # f2's DJI_0003 is missing: the file is flight f1's photo of the same number
    }


def test_masks_are_no_photos(tmp_path: Path) -> None:
    root = write_patches(tmp_path / "patches", "farm/images/DJI_0001_patch_000_000.png")
    photos = tmp_path / "farm"
    for name in ("images/DJI_0001.JPG", "masks/DJI_0001.png", "images/DJI_0001.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(photos / name)
    assert find_photos(index_patches(root), photos) == {Photo("farm", "DJI_0001"): photos / "images/DJI_0001.JPG"}


def test_photos_that_could_be_others_are_refused(tmp_path: Path) -> None:
    root = write_patches(
        tmp_path / "patches", "f1/images/DJI_0001_patch_000_000.png", "f2/images/DJI_0001_patch_000_000.png"
    )
    write_photo(tmp_path / "photos" / "DJI_0001.JPG", 110, -7)
    with pytest.raises(DataError, match=r"DJI_0001.JPG could be a photo of f2 and of f1; put the photos of each"):
        find_photos(index_patches(root), tmp_path / "photos")
    write_photo(tmp_path / "photos" / "more" / "DJI_0001.JPG", 110, -7)
    with pytest.raises(DataError, match="could both be photo DJI_0001"):
        find_photos(index_patches(root), tmp_path / "photos")
    with pytest.raises(DataError, match="is no folder; name the folder with the photos with --photos"):
        find_photos(index_patches(root), tmp_path / "nowhere")


def test_footprints_lie_around_the_place(tmp_path: Path) -> None:
    names = ("images/DJI_0001_patch_000_000.png", "images/DJI_0001_patch_000_001.png", "images/DJI_0002_patch_0_0.png")
    index = index_patches(write_patches(tmp_path / "patches", *names))
    photo = write_photo(tmp_path / "DJI_0001.jpg", 110.5, -7.5, height=100.0, focal=24)
    found = photo_footprints(index, {Photo("", "DJI_0001"): photo})
    assert found.known_N.tolist() == [True, True, False]
    assert found.source_N == ("photos", "photos", "")
    both = photo_footprints(index, dict.fromkeys(index.photos(), photo))
    ground = place_on_planes(both)
    assert ground.epsg_S == (32749,)
    size = ground.box_N4[0, 2:] - ground.box_N4[0, :2]
    assert size == pytest.approx([DIAGONAL_M, DIAGONAL_M], rel=0.02)  # turned a little from the grid's north


def test_a_photo_that_does_not_tell_its_height(tmp_path: Path) -> None:
    index = index_patches(write_patches(tmp_path / "patches", "images/a_patch_0_0.png", "images/b_patch_0_0.png"))
    photos = {Photo("", name): write_photo(tmp_path / f"{name}.jpg", 110, -7, focal=24) for name in "ab"}
    with pytest.raises(DataError, match=r"a.jpg \(and 1 more\) does not tell its height .* say with --footprint"):
        photo_footprints(index, photos)
    seen: list[tuple[int, int]] = []
    found = photo_footprints(index, photos, 80, lambda done, total: seen.append((done, total)))
    assert found.known_N.all()
    assert seen == [(1, 2), (2, 2)]
