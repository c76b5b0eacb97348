from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import SHARED_DATA
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.data.masks import read_image, read_mask
from salakseg.errors import DataError


@pytest.mark.parametrize("hidden", [0.0, 0.4, 1.0])
def test_what_is_transparent_says_nothing(tmp_path: Path, hidden: float) -> None:
    generator = np.random.default_rng(1)
    label_HW = generator.integers(0, len(SALAK), (20, 30)).astype(np.uint8)
    hidden_HW = generator.random((20, 30)) < hidden
    expected_HW = np.where(hidden_HW, 255, label_HW)
    colors = np.dstack([np.where(hidden_HW[..., None], np.uint8(9), in_colors(label_HW)), np.where(hidden_HW, 0, 255)])
    grey = np.dstack([np.where(hidden_HW, 99, label_HW), np.where(hidden_HW, 0, 255)])
    equal = np.dstack([*[np.where(hidden_HW, 99, label_HW)] * 3, np.where(hidden_HW, 0, 1)])
    for values in (colors, grey, equal):
        mask = read_mask(save(tmp_path, values.astype(np.uint8)), SALAK)
        np.testing.assert_array_equal(mask.label_HW, expected_HW)
        assert not mask.unknown


NO_BLACK = ClassMap(
    (LandClass(0, "none", (155, 155, 155)), LandClass(1, "water", (226, 169, 41)), LandClass(2, "road", (60, 16, 152)))
)
LABELS = np.array([[0, 1, 2], [3, 4, 5], [6, 0, 255]], np.uint8)


def save(tmp_path: Path, values: NDArray[np.generic], mode: str | None = None, name: str = "mask.png") -> Path:
    picture = Image.fromarray(values) if mode is None else Image.fromarray(values).convert(mode)
    picture.save(tmp_path / name)
    return tmp_path / name


def in_colors(label_HW: NDArray[np.uint8], class_map: ClassMap = SALAK) -> NDArray[np.uint8]:
    return class_map.colors[label_HW]


def with_palette(index_HW: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(index_HW).convert("L")
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette(palette.astype(np.uint8).tobytes())
    return picture


@pytest.mark.parametrize("name", ["mask.png", "mask.tif"])
def test_an_index_mask(tmp_path: Path, name: str) -> None:
    mask = read_mask(save(tmp_path, LABELS, name=name), SALAK)
    np.testing.assert_array_equal(mask.label_HW, LABELS)
    assert mask.label_HW.dtype == np.uint8
    assert not mask.unknown


def test_three_equal_channels_are_an_index_mask(tmp_path: Path) -> None:
    mask = read_mask(save(tmp_path, np.repeat(LABELS[..., None], 3, axis=2)), SALAK)
    np.testing.assert_array_equal(mask.label_HW, LABELS)


@given(arrays(np.uint8, (5, 7), elements=st.integers(0, 6)))
def test_an_rgb_mask_in_class_colours(tmp_path_factory: pytest.TempPathFactory, label_HW: NDArray[np.uint8]) -> None:
    path = save(tmp_path_factory.mktemp("rgb"), in_colors(label_HW))
    np.testing.assert_array_equal(read_mask(path, SALAK).label_HW, label_HW)


def test_colours_are_read_as_red_green_blue(tmp_path: Path) -> None:
    """Water is (255, 50, 50) and salak (50, 167, 255); read backwards, water would be a stranger."""
    label_HW = np.array([[1, 5]], np.uint8)
    mask = read_mask(save(tmp_path, in_colors(label_HW)), SALAK)
    assert mask.label_HW.tolist() == [[1, 5]]
    reversed_mask = read_mask(save(tmp_path, in_colors(label_HW)[..., ::-1]), SALAK)
    assert reversed_mask.label_HW.tolist() == [[255, 255]]


def test_a_colour_in_no_class_is_ignored_and_counted(tmp_path: Path) -> None:
    rgb = in_colors(np.array([[1, 2, 3], [1, 2, 3]], np.uint8))
    rgb[0, 0] = rgb[1, 2] = (1, 2, 3)
    rgb[0, 1] = (9, 9, 9)
    mask = read_mask(save(tmp_path, rgb), SALAK)
    assert mask.label_HW.tolist() == [[255, 255, 3], [1, 2, 255]]
    assert mask.unknown == {(1, 2, 3): 2, (9, 9, 9): 1}


def test_black_is_no_class_where_no_class_is_black(tmp_path: Path) -> None:
    rgb = in_colors(np.array([[0, 1, 2]], np.uint8), NO_BLACK)
    rgb[0, 0] = 0
    assert read_mask(save(tmp_path, rgb), NO_BLACK).label_HW.tolist() == [[255, 1, 2]]
    wholly_black = read_mask(save(tmp_path, np.zeros((2, 2, 3), np.uint8)), NO_BLACK)
    assert wholly_black.label_HW.tolist() == [[255, 255], [255, 255]]
    assert wholly_black.unknown == {(0, 0, 0): 4}


def test_a_picture_of_one_grey_class_is_no_index_picture(tmp_path: Path) -> None:
    rgb = np.full((2, 2, 3), 155, np.uint8)
    assert read_mask(save(tmp_path, rgb), NO_BLACK).label_HW.tolist() == [[0, 0], [0, 0]]


def test_a_palette_in_class_colours_counts_by_its_colours(tmp_path: Path) -> None:
    order = np.array([4, 0, 6, 1, 5, 3, 2])
    index_HW = np.argsort(order)[np.array([[0, 1, 2], [3, 4, 6]])].astype(np.uint8)
    picture = with_palette(index_HW, SALAK.colors[order])
    picture.save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png", SALAK).label_HW.tolist() == [[0, 1, 2], [3, 4, 6]]


def test_the_last_entry_of_a_palette_is_ignored_though_it_is_black(tmp_path: Path) -> None:
    """A palette that is filled up with black, the colour of background."""
    colors = np.zeros((256, 3), np.uint8)
    colors[:7] = SALAK.colors
    with_palette(np.array([[0, 1, 255]], np.uint8), colors).save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png", SALAK).label_HW.tolist() == [[0, 1, 255]]


def test_the_last_entry_of_a_palette_may_be_a_class(tmp_path: Path) -> None:
    colors = np.full((256, 3), 9, np.uint8)
    colors[255] = SALAK.colors[3]
    with_palette(np.array([[255]], np.uint8), colors).save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png", SALAK).label_HW.tolist() == [[3]]


def test_a_palette_of_other_colours_counts_by_its_indices(tmp_path: Path) -> None:
    palette = np.array([[0, 0, 0], *([200, k, k] for k in range(20))])
    with_palette(LABELS[:2], palette).save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png", SALAK).label_HW.tolist() == LABELS[:2].tolist()


def test_a_palette_with_a_stranger_among_class_colours(tmp_path: Path) -> None:
    with_palette(np.array([[0, 1, 2]], np.uint8), np.array([SALAK.colors[2], [7, 7, 7], SALAK.colors[5]])).save(
        tmp_path / "palette.png"
    )
    mask = read_mask(tmp_path / "palette.png", SALAK)
    assert mask.label_HW.tolist() == [[2, 255, 5]]
    assert mask.unknown == {(7, 7, 7): 1}


def test_transparent_pixels_of_a_mask_are_ignored(tmp_path: Path) -> None:
    rgba = np.dstack([in_colors(np.array([[1, 2]], np.uint8)), np.array([[255, 0]], np.uint8)])
    assert read_mask(save(tmp_path, rgba), SALAK).label_HW.tolist() == [[1, 255]]


@pytest.mark.parametrize("values", [LABELS + 1, np.repeat((LABELS + 1)[..., None], 3, axis=2)])
def test_an_index_beyond_the_classes_names_the_file(tmp_path: Path, values: NDArray[np.uint8]) -> None:
    with pytest.raises(DataError, match=r"mask\.png holds the index 7.*0 to 6"):
        read_mask(save(tmp_path, values), SALAK)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, np.random.default_rng(0).integers(0, 7, (64, 64)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"mask\.png is no readable picture"):
        read_mask(path, SALAK)
    path.write_text("not a picture")
    with pytest.raises(DataError, match=r"mask\.png is no readable picture"):
        read_image(path)
    with pytest.raises(DataError, match="does not exist"):
        read_image(tmp_path / "nowhere.png")


def test_a_mask_of_16_bits_a_channel_is_not_all_background(tmp_path: Path) -> None:
    """Of which Pillow keeps the upper bytes, all of them 0."""
    path = tmp_path / "deep.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=3, height=4, width=4, photometric="rgb"
    ) as dataset:
        dataset.write(np.full((3, 4, 4), 5, np.uint16))
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        read_mask(path, SALAK)


def test_images_come_as_rgb(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path, rgb)), rgb)
    grey = read_image(save(tmp_path, rgb[..., 0]))
    np.testing.assert_array_equal(grey, np.repeat(rgb[..., :1], 3, axis=2))
    deep = save(tmp_path, (rgb[..., 0].astype(np.uint16) * 257), name="deep.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        read_image(deep)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_colours_of_16_bits_are_refused_too(tmp_path: Path) -> None:
    """Pillow would keep the upper byte of each value without a word."""
    path = tmp_path / "deep.png"
    with rasterio.open(path, "w", driver="PNG", width=4, height=4, count=3, dtype="uint16") as dataset:
        dataset.write(np.full((3, 4, 4), 4000, np.uint16))
    with pytest.raises(DataError, match="more than 8 bits"):
        read_image(path)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the real imagery is not part of the repository")
@pytest.mark.parametrize(("tile", "mode"), [("Tile 2", "P"), ("Tile 8", "RGB")])
def test_real_masks_of_both_kinds(tile: str, mode: str) -> None:
    folder = SHARED_DATA / "aerial-labelled"
    class_map = ClassMap.from_csv(folder / "class_mapping.csv")
    path = folder / tile / "masks" / "image_part_003.png"
    with Image.open(path) as picture:
        assert picture.mode == mode
        rgb = np.asarray(picture.convert("RGB"))
    mask = read_mask(path, class_map)
    for land_class in class_map.classes:
        np.testing.assert_array_equal(mask.label_HW == land_class.id, (rgb == land_class.color).all(axis=2))
    black = int((rgb == 0).all(axis=2).sum())
    assert mask.unknown == ({(0, 0, 0): black} if black else {})
    assert int((mask.label_HW == 255).sum()) == black
