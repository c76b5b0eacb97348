"""Which files are cut and what they are called; photos and orthomosaics as pixels."""

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil
from affine import Affine
from cutting import UTM_SOUTH, random_image, write_mosaic, write_photo
from helpers import SHARED_DATA
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from salakseg.cli.splitting import PICTURE
from salakseg.data.patches import photo_of
from salakseg.errors import DataError, RasterError
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.stretch import Stretch
from salakseg.prepare.finding import SPLIT_PICTURE, find_sources, safe_name
from salakseg.prepare.sources import open_source
from salakseg.prepare.windows import patch_stem

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def names(paths: list[Path], folder: str | None = None) -> list[str]:
    return [str(source) for source in find_sources(paths, folder)]


def test_a_folder_gives_its_pictures_in_natural_order(tmp_path: Path) -> None:
    flight = tmp_path / "salak 1"
    touch(*(flight / name for name in ("DJI_10.JPG", "DJI_9.JPG", "notes.txt", ".hidden.jpg", "deeper/DJI_1.JPG")))
    assert names([flight]) == ["salak 1/DJI_9", "salak 1/DJI_10"]
    assert names([flight, flight / "DJI_9.JPG"]) == ["salak 1/DJI_9", "salak 1/DJI_10"]


def test_a_folder_called_images_is_not_what_patches_are_called_after(tmp_path: Path) -> None:
    touch(tmp_path / "Tile 1" / "images" / "part.jpg", tmp_path / "Tile 2" / "images" / "part.jpg")
    assert names([tmp_path / "Tile 1", tmp_path / "Tile 2" / "images"]) == ["Tile 1/part", "Tile 2/part"]


def test_masks_beside_their_pictures_are_not_cut(tmp_path: Path) -> None:
    touch(
        *(tmp_path / name for name in ("a.jpg", "a.png", "b.png", "b_mask.png", "c_label.tif", "d_mask.png", "d.JPG"))
    )
    found = [source.path.name for source in find_sources([tmp_path])]
    assert found == ["a.jpg", "b.png", "c_label.tif", "d.JPG"]


def test_an_orthomosaic_is_cut_and_not_its_quick_look(tmp_path: Path) -> None:
    write_mosaic(tmp_path / "ortho.tif", random_image(8, 8))
    Image.new("RGB", (8, 8)).save(tmp_path / "ortho.jpg")
    assert [source.path.name for source in find_sources([tmp_path])] == ["ortho.tif"]


def test_the_picture_of_a_split_is_not_cut(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg", tmp_path / PICTURE)
    assert SPLIT_PICTURE == PICTURE
    assert [source.path.name for source in find_sources([tmp_path])] == ["a.jpg", PICTURE]
    touch(tmp_path / "prepare.json")
    assert [source.path.name for source in find_sources([tmp_path])] == ["a.jpg"]


def test_maps_and_the_parts_of_a_vrt_are_not_cut(tmp_path: Path) -> None:
    part = write_mosaic(tmp_path / "part.tif", random_image(8, 8))
    write_mosaic(tmp_path / "other.tif", random_image(8, 8))
    with rasterio.open(write_mosaic(tmp_path / "map.tif", random_image(8, 8)), "r+") as dataset:
        dataset.update_tags(TIFFTAG_SOFTWARE="salakseg 0.1")
    rasterio.shutil.copy(part, tmp_path / "whole.vrt", driver="VRT")
    assert [source.path.name for source in find_sources([tmp_path])] == ["other.tif", "whole.vrt"]


def test_names_with_wildcards(tmp_path: Path) -> None:
    touch(tmp_path / "b2.jpg", tmp_path / "b10.jpg", tmp_path / "c.jpg", tmp_path / "with [1].jpg")
    assert [source.name for source in find_sources([tmp_path / "b*.jpg"])] == ["b2", "b10"]
    assert [source.name for source in find_sources([tmp_path / "with [1].jpg"])] == ["with [1]"]
    with pytest.raises(DataError, match=r"x\*\.jpg fits no file; check the folder"):
        find_sources([tmp_path / "x*.jpg"])


def test_one_folder_for_all(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "b" / "2.jpg")
    assert names([tmp_path / "a", tmp_path / "b"], "site") == ["site/1", "site/2"]
    for bad in ("a/b", "..", "images", "Masks", "", "a\\b", "a:"):
        with pytest.raises(DataError, match="is no name for a folder of patches"):
            find_sources([tmp_path / "a"], bad)


@pytest.mark.parametrize("other", ["b/site.tif", "a/site.tiff", "a/SITE.tif"])
def test_two_sources_of_one_name_are_refused(tmp_path: Path, other: str) -> None:
    touch(tmp_path / "a" / "site.tif", tmp_path / other)
    with pytest.raises(DataError, match=r"would both give patches named all/(site|SITE); leave one out"):
        find_sources([tmp_path / "a" / "site.tif", tmp_path / other], "all")


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist; check the name"):
        find_sources([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="holds no orthomosaic and no photo"):
        find_sources([tmp_path])


@pytest.mark.parametrize("name", [b"f\xe9.jpg", b"f\xe9.tif", b"f\xe9/a.jpg"])
def test_names_that_are_no_text_are_refused(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    try:
        touch(path)
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(DataError, match=r"f.* has a name that is not UTF-8; rename"):
        find_sources([path.parent])


@given(st.text(min_size=1, max_size=30))
def test_any_name_becomes_one_that_works_everywhere(text: str) -> None:
    name = safe_name(text)
    assert safe_name(name) == name
    assert not set(name) & set('<>:"/\\|?*\0\n')
    assert name == unicodedata.normalize("NFC", name)
    assert not name.startswith((".", " ")) and not name.endswith((".", " "))
    assert photo_of(patch_stem(name, 3, 1000)) == name


@pytest.mark.parametrize("name", ["con", "NUL", "aux.1", "Lpt1"])
def test_devices_of_windows_are_no_names(name: str) -> None:
    assert safe_name(name) == f"_{name}"


@pytest.mark.parametrize(
    "name", ["console", "com", "DJI_0462", "Kebun salak (2)", "žluťoučký", "農場", "a_patch_001_002", "x.y"]
)
def test_ordinary_names_stay(name: str) -> None:
    assert safe_name(name) == name


def read_all(path: Path, options: SourceOptions | None = None, **more: Any) -> tuple[NDArray[Any], NDArray[Any], Any]:
    source = open_source(path, options or SourceOptions(), **more)
    try:
        return *source.read(0, 0, source.grid.height, source.grid.width), source
    finally:
        source.close()


@pytest.mark.parametrize("name", ["p.png", "p.tif", "p.PNG"])
def test_a_photo_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    image_CHW = random_image(20, 30)
    found_CHW, valid_HW, source = read_all(write_photo(tmp_path / name, image_CHW))
    np.testing.assert_array_equal(found_CHW, image_CHW)
    assert valid_HW.all() and source.grid.crs is None and source.grid.transform == Affine.identity()
    assert source.notes == ()


def test_beyond_a_photo_nothing_is_valid(tmp_path: Path) -> None:
    image_CHW = random_image(20, 30)
    source = open_source(write_photo(tmp_path / "p.png", image_CHW), SourceOptions())
    found_CHW, valid_HW = source.read(16, 24, 8, 16)
    np.testing.assert_array_equal(found_CHW[:, :4, :6], image_CHW[:, 16:, 24:])
    np.testing.assert_array_equal(np.argwhere(valid_HW), np.argwhere(np.ones((4, 6))))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_photo_is_not_turned_and_says_so(tmp_path: Path, orientation: int) -> None:
    image_CHW = random_image(20, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_photo(tmp_path / "p.png", image_CHW, exif=exif)
    found_CHW, _, source = read_all(path)
    np.testing.assert_array_equal(found_CHW, image_CHW)
    assert f"EXIF orientation {orientation}" in source.notes[0] and "cut as it is stored" in source.notes[0]


def test_transparent_pixels_of_a_photo_are_not_valid(tmp_path: Path) -> None:
    rgba_HWC = np.random.default_rng(1).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    rgba_HWC[5:9, :, 3] = 0
    Image.fromarray(rgba_HWC).save(tmp_path / "p.png")
    found_CHW, valid_HW, _ = read_all(tmp_path / "p.png")
    np.testing.assert_array_equal(valid_HW, rgba_HWC[..., 3] > 0)
    np.testing.assert_array_equal(found_CHW, rgba_HWC[..., :3].transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK"])
def test_photos_of_other_kinds_become_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(random_image(20, 30).transpose(1, 2, 0)).convert(mode)
    path = tmp_path / ("p.jpg" if mode == "CMYK" else "p.png")
    picture.save(path)
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_all(path)[0], expected)


def test_photos_that_cannot_be_read(tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(deep)
    with pytest.raises(DataError, match=r"deep\.png has more than 8 bits a channel .* --allow-no-crs and --scale"):
        open_source(deep, SourceOptions())
    write_mosaic(tmp_path / "deep rgb.png", np.full((3, 4, 4), 3000, np.uint16), driver="PNG", crs=None, transform=None)
    with pytest.raises(DataError, match=r"deep rgb\.png has more than 8 bits a channel"):
        open_source(tmp_path / "deep rgb.png", SourceOptions())
    whole = write_photo(tmp_path / "whole.jpg", random_image(64, 64)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.jpg is no readable photo"):
        read_all(tmp_path / "cut.jpg")
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"text\.jpg is no readable photo"):
        open_source(tmp_path / "text.jpg", SourceOptions())
    with pytest.raises(DataError, match="does not exist; check the photo's name"):
        open_source(tmp_path / "gone.jpg", SourceOptions())
    with pytest.raises(RasterError, match="does not exist"):
        open_source(tmp_path / "gone.tif", SourceOptions())
    (tmp_path / "text.tif").write_text("hello")
    with pytest.raises(RasterError, match="is not a raster that can be read"):
        open_source(tmp_path / "text.tif", SourceOptions())


@pytest.mark.filterwarnings("error")
def test_exif_data_that_is_damaged_changes_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.update({0x010F: "camera of some make", 0x0112: 6})
    whole = exif.tobytes()
    for length in range(1, len(whole)):
        write_photo(tmp_path / "p.png", random_image(20, 30), exif=whole[:length])
        np.testing.assert_array_equal(read_all(tmp_path / "p.png")[0], random_image(20, 30))


def test_a_tiff_that_pillow_cannot_read_may_be_cut_as_an_orthomosaic(tmp_path: Path) -> None:
    five = write_mosaic(
        tmp_path / "five.tif", np.concatenate([random_image(20, 30)] * 2)[:5], crs=None, transform=Affine.identity()
    )
    with pytest.raises(DataError, match=r"five\.tif is no readable photo .* as an orthomosaic by --allow-no-crs"):
        open_source(five, SourceOptions())
    found_CHW, _, _ = read_all(five, SourceOptions(allow_no_crs=True))
    np.testing.assert_array_equal(found_CHW, random_image(20, 30))


def test_a_tiff_without_a_place_is_a_photo_unless_it_is_said_to_be_none(tmp_path: Path) -> None:
    deep = (random_image(20, 30).astype(np.uint16) * 16).astype(np.uint16)
    path = write_mosaic(tmp_path / "o.tif", deep, crs=None, transform=Affine.identity())
    with pytest.raises(DataError):  # Pillow knows no RGB of 16 bits
        open_source(path, SourceOptions())
    found_CHW, _, _ = read_all(path, SourceOptions(stretch=Stretch(0, 4080), allow_no_crs=True))
    np.testing.assert_array_equal(found_CHW, random_image(20, 30))


def test_a_raster_that_only_says_half_of_its_place_is_refused(tmp_path: Path) -> None:
    path = write_mosaic(tmp_path / "o.tif", random_image(8, 8), crs=None)
    with pytest.raises(RasterError, match="names no coordinate reference system"):
        open_source(path, SourceOptions())


def test_the_ground_sampling_distance_makes_the_grid(tmp_path: Path) -> None:
    path = write_mosaic(tmp_path / "o.tif", random_image(40, 60))
    found_CHW, valid_HW, source = read_all(path, gsd_m=0.10)
    assert (source.grid.height, source.grid.width) == (20, 30)
    assert source.grid.transform == UTM_SOUTH @ Affine.scale(2)
    mean_CHW = random_image(40, 60).reshape(3, 20, 2, 30, 2).mean(axis=(2, 4))
    assert np.abs(found_CHW - mean_CHW).max() <= 0.5 + 1e-4 and valid_HW.all()


def test_nearly_the_same_distance_is_the_same(tmp_path: Path) -> None:
    path = write_mosaic(tmp_path / "o.tif", random_image(40, 60))
    found_CHW, _, source = read_all(path, gsd_m=0.0503)
    np.testing.assert_array_equal(found_CHW, random_image(40, 60))
    assert source.grid.transform == UTM_SOUTH


def test_distances_that_cannot_be_had(tmp_path: Path) -> None:
    path = write_mosaic(tmp_path / "o.tif", random_image(8, 8))
    for gsd_m in (0.004, 51.0):
        with pytest.raises(DataError, match=r"has 0\.05 m a pixel, which is too far .* choose 0\.005 m or more"):
            open_source(path, SourceOptions(), gsd_m)
    with pytest.raises(DataError, match="is a photo, whose pixels have no known size"):
        open_source(write_photo(tmp_path / "p.png", random_image(8, 8)), SourceOptions(), 0.1)
    nowhere = write_mosaic(tmp_path / "n.tif", random_image(8, 8), crs=None)
    with pytest.raises(DataError, match="the size of its pixels is not known"):
        open_source(nowhere, SourceOptions(allow_no_crs=True), 0.1)


def test_what_qgis_leaves_beside_a_raster_changes_nothing(tmp_path: Path) -> None:
    path = write_mosaic(tmp_path / "o.tif", random_image(8, 8))
    source = open_source(path, SourceOptions())
    before = source.state()
    source.close()
    (tmp_path / "o.tif.aux.xml").write_text("<PAMDataset><Metadata><MDI key='A'>1</MDI></Metadata></PAMDataset>")
    source = open_source(path, SourceOptions())
    assert source.state() == before and list(before) == ["o.tif"]
    source.close()


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the real imagery is not here")
@pytest.mark.parametrize("name", ["australia.tif", "3420B_2010_328_RGB_LATLNG.tif", "ngi_mosaic_rgb_byte.vrt"])
def test_real_files_open(name: str) -> None:
    source = open_source(SHARED_DATA / "geotiff-kinds" / name, SourceOptions())
    image_CHW, valid_HW = source.read(100, 100, 64, 64)
    assert source.grid.crs is not None and image_CHW.shape == (3, 64, 64) and valid_HW.any()
    source.close()
