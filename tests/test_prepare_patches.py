"""Patches as files: where they lie, what they are called, what is in them."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from salakseg.classes import IGNORE_INDEX, SALAK, ClassMap, LandClass
from salakseg.data.masks import read_mask
from salakseg.prepare.png import encode_image, encode_label
from salakseg.prepare.windows import STRIP_PIXELS, Windows, patch_stem

GREYS = ClassMap((LandClass(0, "none", (0, 0, 0)), LandClass(1, "a", (1, 1, 1)), LandClass(2, "b", (2, 2, 2))))
WHITES = ClassMap(tuple(LandClass(i, f"c{i}", (255 - i, 255 - i, 255 - i)) for i in range(5)))
MANY = ClassMap(tuple(LandClass(i, f"c{i}", (i, 255 - i, 7)) for i in range(254)))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_picture_is_read_back_exactly(height: int, width: int, seed: int) -> None:
    image_CHW = np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)
    with Image.open(io.BytesIO(encode_image(image_CHW))) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(picture).transpose(2, 0, 1), image_CHW)


def test_a_picture_that_is_a_view_of_a_larger_one() -> None:
    large_CHW = np.random.default_rng(3).integers(0, 256, (3, 50, 70), dtype=np.uint8)
    with Image.open(io.BytesIO(encode_image(large_CHW[:, 10:30, 20:63]))) as picture:
        np.testing.assert_array_equal(np.asarray(picture).transpose(2, 0, 1), large_CHW[:, 10:30, 20:63])


def labels(class_map: ClassMap, seed: int = 4) -> NDArray[np.uint8]:
    ids = np.array([*range(len(class_map)), IGNORE_INDEX], np.uint8)
    return np.random.default_rng(seed).choice(ids, (33, 47))


@pytest.mark.parametrize("class_map", [SALAK, GREYS, WHITES, MANY], ids=["salak", "grey", "white", "254 classes"])
@pytest.mark.parametrize("only", [None, 0, 1, IGNORE_INDEX])
def test_a_mask_is_read_back_exactly(tmp_path: Path, class_map: ClassMap, only: int | None) -> None:
    label_HW = labels(class_map) if only is None else np.full((9, 5), only, np.uint8)
    (tmp_path / "m.png").write_bytes(encode_label(label_HW, class_map))
    mask = read_mask(tmp_path / "m.png", class_map)
    np.testing.assert_array_equal(mask.label_HW, label_HW)
    assert not mask.unknown


def test_a_mask_is_an_index_that_shows_the_class_colours(tmp_path: Path) -> None:
    label_HW = labels(SALAK)
    with Image.open(io.BytesIO(encode_label(label_HW, SALAK))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), label_HW)
        shown_HWC = np.asarray(picture.convert("RGBA"))
    known_HW = label_HW != IGNORE_INDEX
    np.testing.assert_array_equal(shown_HWC[known_HW][:, :3], SALAK.colors[label_HW[known_HW]])
    assert (shown_HWC[..., 3] == np.where(known_HW, 255, 0)).all()


def test_a_transparent_class_is_a_class_still(tmp_path: Path) -> None:
    """Tools make index 0 transparent, to show a mask over its picture."""
    with Image.open(io.BytesIO(encode_label(labels(SALAK), SALAK))) as picture:
        picture.save(tmp_path / "m.png", transparency=0)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", SALAK).label_HW, labels(SALAK))


def test_an_unknown_colour_at_index_255_is_told_unless_transparent(tmp_path: Path) -> None:
    label_HW = labels(SALAK)
    with Image.open(io.BytesIO(encode_label(label_HW, SALAK))) as picture:
        picture.info.pop("transparency")
        picture.save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", SALAK)
    np.testing.assert_array_equal(mask.label_HW, label_HW)
    assert mask.unknown == {(255, 255, 255): int((label_HW == IGNORE_INDEX).sum())}


sides = st.integers(1, 300)


@given(sides, sides, st.integers(1, 80), st.integers(1, 100))
def test_patches_cover_a_grid_and_none_lies_beyond(height: int, width: int, patch: int, stride: int) -> None:
    windows = Windows(height, width, patch, stride)
    assert len(windows) == windows.rows * windows.cols
    for size, count in ((height, windows.rows), (width, windows.cols)):
        starts = np.arange(count) * stride
        assert (starts < size).all()
        assert (starts[:-1] + patch < size).all()  # only the last reaches the end
        if stride <= patch:
            assert starts[-1] + patch >= size


@given(sides, sides, st.integers(1, 80), st.integers(1, 100))
def test_strips_hold_every_patch_once(height: int, width: int, patch: int, stride: int) -> None:
    windows = Windows(height, width, patch, stride)
    places = [(strip.row, col) for strip in windows.strips() for col in range(strip.first, strip.stop)]
    assert places == [(row, col) for row in range(windows.rows) for col in range(windows.cols)]


@given(st.integers(1, 10**6), st.integers(8, 8192), st.integers(1, 8192))
def test_a_strip_fits_into_memory(width: int, patch: int, stride: int) -> None:
    windows = Windows(1, width, patch, stride)
    for strip in windows.strips():
        _, col, height, wide = windows.span(strip)
        assert col == strip.first * stride
        assert height * wide <= max(STRIP_PIXELS, patch * patch)
        if strip.row or strip.first > 3 * (strip.stop - strip.first):
            break


def test_names_sort_as_the_patches_lie() -> None:
    names = [patch_stem("site", row, col) for row in (0, 9, 10, 120) for col in (0, 3, 99, 100)]
    assert names == sorted(names)
    assert patch_stem("DJI_0462", 13, 0) == "DJI_0462_patch_013_000"
    assert patch_stem("a", 1234, 5) == "a_patch_1234_005"
