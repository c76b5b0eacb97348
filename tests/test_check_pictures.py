"""Faults of single pictures and masks, planted into a clean folder, are found and named rightly."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from faults import SECOND, SECOND_MASK, check, cut_short, only
from patch_sets import FIRST, FIRST_MASK, read, write
from PIL import Image

from salakseg.check.finding import Severity
from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.data.patches import index_patches

# ---- files


@pytest.mark.parametrize("damage", [cut_short, lambda path: path.write_bytes(b""), lambda path: path.write_text("x")])
def test_damaged_pictures(root: Path, damage: Callable[[Path], object]) -> None:
    damage(root / FIRST)
    finding = only(check(root), "unreadable-picture", Severity.ERROR)
    assert (finding.count, finding.examples) == (1, (FIRST,))
    assert "no readable picture" in finding.details[0] and str(root) not in finding.details[0]


def test_damaged_masks(root: Path) -> None:
    cut_short(root / FIRST_MASK)
    finding = only(check(root), "unreadable-mask", Severity.ERROR)
    assert (finding.count, finding.examples) == (1, (FIRST_MASK,))


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_pictures_that_may_not_be_read(root: Path) -> None:
    (root / FIRST).chmod(0)
    assert only(check(root), "unreadable-picture", Severity.ERROR).examples == (FIRST,)


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_pictures_of_16_bits(root: Path, bands: int) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (bands, 64, 64)).astype(np.uint16)
    with rasterio.open(root / FIRST, "w", driver="PNG", width=64, height=64, count=bands, dtype="uint16") as dataset:
        dataset.write(values)
    finding = only(check(root), "deep-picture", Severity.ERROR)
    assert finding.examples == (FIRST,) and "more than 8 bits" in finding.details[0]


def test_masks_of_a_kind_that_none_has(root: Path) -> None:
    path = root / FIRST_MASK
    Image.fromarray(read(path).astype(np.float32)).save(path.with_suffix(".tif"))
    path.unlink()
    finding = only(check(root), "mask-kind", Severity.ERROR)
    assert finding.examples == (FIRST_MASK.replace(".png", ".tif"),) and "mode F" in finding.details[0]


def test_indices_beyond_the_classes(root: Path) -> None:
    label_HW = read(root / FIRST_MASK)
    label_HW[3, 4] = 9
    write(root / FIRST_MASK, label_HW)
    finding = only(check(root), "index-out-of-range", Severity.ERROR)
    assert finding.examples == (FIRST_MASK,) and "index 9" in finding.details[0] and "0 to 6" in finding.message


def test_masks_of_another_size(root: Path) -> None:
    write(root / FIRST_MASK, read(root / FIRST_MASK)[:, :-1])
    finding = only(check(root), "mask-size", Severity.ERROR)
    assert finding.examples == (FIRST_MASK,) and finding.details == ("63 x 64, its picture 64 x 64",)


def test_pictures_of_different_sizes(root: Path) -> None:
    write(root / FIRST, read(root / FIRST)[:, :-4])
    write(root / FIRST_MASK, read(root / FIRST_MASK)[:, :-4])
    finding = only(check(root), "sizes", Severity.NOTE)
    assert finding.count == 2 and finding.examples[1] == FIRST and finding.details[1] == "60 x 64, like 1 picture"


@pytest.mark.parametrize("three", [False, True])
def test_grey_pictures(root: Path, three: bool) -> None:
    grey_HW = np.array(Image.open(root / FIRST).convert("L"))
    write(root / FIRST, np.repeat(grey_HW[..., None], 3, axis=2) if three else grey_HW)
    assert only(check(root), "grey", Severity.WARNING).examples == (FIRST,)


@pytest.mark.parametrize(("alpha", "severity"), [(255, Severity.NOTE), (0, Severity.WARNING)])
def test_pictures_with_transparency(root: Path, alpha: int, severity: Severity) -> None:
    alpha_HW = np.full((64, 64), 255, np.uint8)
    alpha_HW[:8] = alpha
    write(root / FIRST, np.dstack([read(root / FIRST), alpha_HW]))
    assert only(check(root), "alpha", severity).examples == (FIRST,)


@pytest.mark.parametrize("form", ["JPEG", "MPO"])
def test_pictures_that_exif_turns(root: Path, form: str) -> None:
    """MPO is what Pillow calls a JPEG with a preview inside, as drones write them."""
    picture = Image.open(root / FIRST)
    exif = Image.Exif()
    exif[0x0112] = 6
    preview = {"save_all": True, "append_images": [picture.resize((8, 8))]} if form == "MPO" else {}
    picture.save((root / FIRST).with_suffix(".jpg"), form, exif=exif, quality=95, **preview)
    (root / FIRST).unlink()
    assert only(check(root), "turned", Severity.WARNING).examples == (FIRST.replace(".png", ".jpg"),)


def test_pictures_of_a_single_colour(root: Path) -> None:
    for name in (FIRST, SECOND):
        write(root / name, np.full((64, 64, 3), (255, 255, 255), np.uint8))
    finding = only(check(root), "constant", Severity.WARNING)  # and not as duplicates
    assert (finding.count, finding.examples) == (2, (FIRST, SECOND))


# ---- masks


def in_colors(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    label_HW = read(path)
    return SALAK.colors[np.where(label_HW == 255, 0, label_HW)]


def test_colours_in_no_class_with_counts_and_places(root: Path) -> None:
    few, many = in_colors(root / FIRST_MASK), in_colors(root / SECOND_MASK)
    few[0, :3] = many[:10, :10] = (1, 2, 3)
    many[20, 20] = (9, 8, 7)
    write(root / FIRST_MASK, few)
    write(root / SECOND_MASK, many)
    finding = only(check(root), "unknown-colour", Severity.WARNING, "mixed-masks")
    assert (finding.count, finding.examples) == (2, (SECOND_MASK, FIRST_MASK))  # the worst first
    assert "104 pixels" in finding.message and "(1, 2, 3) 103 px, (9, 8, 7) 1 px" in finding.message
    assert finding.details == ("101 pixels, 2.5 % of it", "3 pixels, less than 0.1 % of it")


def test_masks_drawn_by_another_class_mapping(root: Path) -> None:
    other = ClassMap(tuple(LandClass(c.id, c.name, (10 * c.id, 77, 200)) for c in SALAK.classes))
    for path in root.glob("*/masks/*"):
        write(path, in_colors(path))
    finding = only(check(root, other), "misread", Severity.ERROR, "unknown-colour", "empty-mask")
    assert "they hold the colours (0, 0, 0)" in finding.message and "--class-mapping" in finding.remedy


def test_masks_in_which_nothing_is_labelled(root: Path) -> None:
    for path in root.glob("*/masks/*"):
        write(path, np.full((64, 64), 255, np.uint8))
    finding = only(check(root), "misread", Severity.ERROR, "empty-mask")
    assert "Every pixel of the masks is 255" in finding.message


def test_black_that_is_no_class_is_told(root: Path) -> None:
    no_black = ClassMap(tuple(LandClass(c.id, c.name, c.color if c.id else (155, 155, 155)) for c in SALAK.classes))
    for path in (root / "salak-1-1" / "masks").iterdir():
        write(path, no_black.colors[np.where(read(path) == 255, 0, read(path))])
    for path in (root / "salak-1-2" / "masks").iterdir():
        path.unlink()
    rgb_HWC = read(root / FIRST_MASK)
    rgb_HWC[:16] = 0
    write(root / FIRST_MASK, rgb_HWC)
    finding = only(check(root, no_black, splits=False), "unknown-colour", Severity.WARNING, "stray-masks")
    assert "(0, 0, 0) 1,024 px" in finding.message and "not background" in finding.message


def test_masks_in_bgr_order(root: Path) -> None:
    reversed_ones = sorted((root / "salak-1-1" / "masks").iterdir())[:9]
    for path in reversed_ones:
        write(path, in_colors(path)[..., ::-1])
    finding = only(check(root), "reversed-colour", Severity.ERROR, "mixed-masks")
    assert finding.count == sum(bool((read(path) > 0).any()) for path in reversed_ones)
    assert "BGR" in finding.message and set(finding.examples) <= {
        path.relative_to(root).as_posix() for path in reversed_ones
    }


def test_masks_of_different_kinds(root: Path) -> None:
    write(root / FIRST_MASK, in_colors(root / FIRST_MASK))
    palette = Image.fromarray(read(root / SECOND_MASK))
    palette.putpalette(np.vstack([SALAK.colors, np.full((249, 3), 254)]).astype(np.uint8).tobytes())
    palette.save(root / SECOND_MASK)
    finding = only(check(root), "mixed-masks", Severity.NOTE)
    masks = index_patches(root).labelled_count
    assert f"{masks - 2:,} grey, 1 RGB and 1 palette" in finding.message


def test_masks_without_a_labelled_pixel(root: Path) -> None:
    write(root / FIRST_MASK, np.full((64, 64), 255, np.uint8))
    assert only(check(root), "empty-mask", Severity.NOTE).examples == (FIRST_MASK,)
