"""Sources, labels and classes that are odd, and what is said of them."""

import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from cutting import ROTATED, ArrayLabels, label_source, random_image, random_label, stitch, write_mosaic, write_photo
from numpy.typing import NDArray

from salakseg.classes import ClassMap, LandClass
from salakseg.data.patches import index_patches
from salakseg.errors import DataError
from salakseg.prepare.grid import Grid
from salakseg.prepare.index import class_columns
from salakseg.prepare.request import Request
from salakseg.prepare.run import Summary, prepare

SIDE = 96


def run(*sources: Path, out: Path, **more: Any) -> Summary:
    return prepare(Request(sources=sources, root=out, **({"patch": 32} | more)))


def quoted(name: str) -> str:
    """A field as CSV has it."""
    return '"' + name.replace('"', '""') + '"'


def test_every_class_has_a_column_of_its_own(tmp_path: Path) -> None:
    names = ("row", "row (class)", "Air, “Badan”", 'a "q"', "ジャングル", "split")
    (tmp_path / "classes.csv").write_text(
        "class_name,class_color\n" + "".join(f"{quoted(name)},{i} 0 9\n" for i, name in enumerate(names)),
        encoding="utf-8",
    )
    label_HW = random_label(SIDE, SIDE, 1.0) % len(names)
    source = write_mosaic(tmp_path / "site.tif", random_image(SIDE, SIDE))
    run(source, out=tmp_path / "root", labels=label_source(label_HW), class_mapping=tmp_path / "classes.csv")
    class_map = ClassMap(tuple(LandClass(i, name, (i, 0, 9)) for i, name in enumerate(names)))
    assert len({column.casefold() for column in class_columns(class_map)}) == len(names)
    table = gpd.read_file(tmp_path / "root" / "patches.gpkg")
    shares = table[list(class_columns(class_map))].sum().to_numpy() * 32**2
    np.testing.assert_allclose(shares, [(label_HW == k).sum() for k in range(len(names))])


def test_labels_of_no_source_are_told_once(tmp_path: Path) -> None:
    photos = [write_photo(tmp_path / "flight" / f"{n}.png", random_image(SIDE, SIDE, n)) for n in range(3)]

    def opened(grid: Grid, source: Path) -> ArrayLabels | None:
        return ArrayLabels(random_label(SIDE, SIDE)) if source == photos[2] else None

    summary = run(*photos[:2], out=tmp_path / "root", labels=label_source(opened))
    assert len(summary.notes) == 1 and "the labels are of none of the sources" in summary.notes[0]
    assert not run(*photos, out=tmp_path / "all", labels=label_source(opened)).notes
    assert not run(*photos[:2], out=tmp_path / "without").notes


class Touching(ArrayLabels):
    """Labels in the reading of which a file changes, as it does when the next export is written over it."""

    def __init__(self, label_HW: NDArray[np.uint8], change: Any) -> None:
        super().__init__(label_HW)
        self._change = change

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.uint8]:
        self._change()
        return super().read(row, col, height, width)


@pytest.mark.parametrize("gone", [False, True])
def test_a_source_that_changes_while_it_is_cut_is_not_finished(tmp_path: Path, gone: bool) -> None:
    image_CHW, label_HW, root = random_image(SIDE, SIDE), random_label(SIDE, SIDE), tmp_path / "root"
    source = write_photo(tmp_path / "p.png", image_CHW)

    def change() -> None:
        if gone:
            source.unlink(missing_ok=True)
        else:
            os.utime(source, (1, 1))

    with pytest.raises(DataError, match=r"p\.png has changed while it was cut \(.*; cut it anew with --overwrite"):
        run(source, out=root, labels=label_source(lambda grid, path: Touching(label_HW, change)))
    write_photo(source, image_CHW)
    with pytest.raises(DataError, match="from a run that was stopped; go on with --resume, or begin anew"):
        run(source, out=root, labels=label_source(label_HW))
    with pytest.raises(DataError, match="cannot be gone on with"):
        run(source, out=root, labels=label_source(label_HW), resume=True)
    assert run(source, out=root, labels=label_source(label_HW), overwrite=True).patches == 9


@pytest.mark.parametrize("stride", [32, 21, 40])
def test_a_rotated_mosaic_with_thin_strips_of_ground(tmp_path: Path, stride: int) -> None:
    image_CHW = random_image(SIDE, SIDE)
    image_CHW[:, :, 1:40] = 0
    image_CHW[:, 50, :] = 0
    image_CHW[:, 60:80, 60:61] = 0
    label_HW = random_label(SIDE, SIDE, 1.0)
    source = write_mosaic(tmp_path / "site.tif", image_CHW, transform=ROTATED, nodata=0)
    run(source, out=tmp_path / "root", labels=label_source(label_HW), stride=stride, min_valid=0)
    found_CHW, found_HW, seen_HW = stitch(tmp_path / "root", "site", SIDE, SIDE, stride)
    valid_HW = (image_CHW != 0).any(axis=0)
    np.testing.assert_array_equal(found_CHW, np.where(seen_HW, image_CHW, 0))
    np.testing.assert_array_equal(found_HW, np.where(seen_HW & valid_HW, label_HW, 255))
    assert seen_HW[valid_HW].all() or stride == 40


@pytest.mark.parametrize("side", [1, 20, 31, 33])
def test_mosaics_of_about_a_patch_or_less(tmp_path: Path, side: int) -> None:
    source = write_mosaic(tmp_path / "site.tif", random_image(side, side))
    run(source, out=tmp_path / "root", min_valid=0)
    assert len(index_patches(tmp_path / "root").patches) == (4 if side > 32 else 1)
    np.testing.assert_array_equal(stitch(tmp_path / "root", "site", side, side, 32)[0], random_image(side, side))


@pytest.mark.parametrize("transform", [Affine(0.05, 0, 431000, 0, 0, 9154000), Affine(1, 1, 431000, 1, 1, 9154000)])
def test_pixels_without_area_are_refused(tmp_path: Path, transform: Affine) -> None:
    source = write_mosaic(tmp_path / "site.tif", random_image(SIDE, SIDE), transform=transform)
    with pytest.raises(DataError, match=r"site\.tif has a georeference by which its pixels have no area"):
        run(source, out=tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_a_mosaic_beyond_the_globe_has_no_place_among_others(tmp_path: Path) -> None:
    far = write_mosaic(tmp_path / "far.tif", random_image(SIDE, SIDE), transform=Affine(0.05, 0, 4e9, 0, -0.05, 9e9))
    near = write_mosaic(tmp_path / "near.tif", random_image(SIDE, SIDE), crs="EPSG:32648")
    assert run(far, out=tmp_path / "alone").patches == 9
    with pytest.raises(DataError, match="far lies where its reference system has no coordinates on the globe"):
        run(far, near, out=tmp_path / "root")
