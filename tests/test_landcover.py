"""The map as a file that other programs understand, and its preview."""

import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.errors import RasterError
from salakseg.mapping.landcover import count_classes, create_map, map_tags, sidecar, write_category_names, write_cog
from salakseg.mapping.preview import scale_length, write_preview

UTM = Affine(0.05, 0.0, 431000.0, 0.0, -0.05, 9154000.0)
ODD_NAMES = ClassMap(
    (
        LandClass(0, "none <0>", (1, 2, 3)),
        LandClass(1, 'Tom & "Jerry"', (4, 5, 6)),
        LandClass(2, "Überschwemmung, sawah 稻", (7, 8, 9)),
    )
)


def random_labels(height: int, width: int, classes: int = 7) -> NDArray[np.uint8]:
    """Blocks of single classes with a corner that is not valid."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, classes, (height // 20 + 1, width // 20 + 1), dtype=np.uint8)
    label_HW = coarse.repeat(20, axis=0).repeat(20, axis=1)[:height, :width]
    label_HW[: height // 4, : width // 4] = 255
    return label_HW


def make_map(folder: Path, label_HW: NDArray[np.uint8], class_map: ClassMap = SALAK) -> Path:
    height, width = label_HW.shape
    tags = map_tags(class_map, model="model.onnx", tile=512, overlap=128)
    with create_map(
        folder / "scratch.tif",
        crs="EPSG:32749",
        transform=UTM,
        height=height,
        width=width,
        class_map=class_map,
        tags=tags,
    ) as dataset:
        dataset.write(label_HW, 1)
    write_cog(folder / "scratch.tif", folder / "map.tif", class_map)
    return folder / "map.tif"


def test_a_map_is_a_valid_cog_made_from_nothing(tmp_path: Path) -> None:
    label_HW = random_labels(1300, 1100)
    path = make_map(tmp_path, label_HW)
    valid, errors, warnings = cog_validate(path, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), label_HW)
        assert (dataset.count, dataset.dtypes, dataset.nodata) == (1, ("uint8",), 255)
        assert dataset.mask_flag_enums == ([MaskFlags.nodata],)  # no alpha, no mask band
        assert dataset.compression.name == "deflate"
        assert dataset.crs.to_epsg() == 32749
        assert dataset.transform == UTM
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, label_HW != 255)


def test_colours_are_those_of_the_class_map_in_the_overviews_too(tmp_path: Path) -> None:
    path = make_map(tmp_path, random_labels(1300, 1100))
    for options in ({}, {"overview_level": 0}, {"overview_level": 1}):
        with rasterio.open(path, **options) as dataset:
            assert dataset.colorinterp == (ColorInterp.palette,)
            table = dataset.colormap(1)
        assert [table[class_id][:3] for class_id in range(7)] == [land_class.color for land_class in SALAK.classes]
        assert all(table[class_id][3] == 255 for class_id in range(7))
        assert table[255][3] == 0


def test_overviews_hold_classes_and_no_averages(tmp_path: Path) -> None:
    greys = ClassMap(tuple(LandClass(i, f"grey {i}", (100 * i, 100 * i, 100 * i)) for i in range(3)))
    label_HW = np.zeros((1024, 1024), np.uint8)
    label_HW[:, ::2] = 2  # averaged, be it ids or colours, the two would be class 1
    path = make_map(tmp_path, label_HW, greys)
    with rasterio.open(path, overview_level=0) as dataset:
        overview_HW = dataset.read(1)
    assert set(np.unique(overview_HW)) <= {0, 2}


def _names(path: Path) -> list[str | None]:
    root = ElementTree.parse(sidecar(path)).getroot()
    assert root.tag == "PAMDataset"
    return [name.text for name in root.findall("PAMRasterBand[@band='1']/CategoryNames/Category")]


@pytest.mark.parametrize("class_map", [SALAK, ODD_NAMES], ids=["salak", "odd names"])
def test_class_names_stand_in_the_sidecar(tmp_path: Path, class_map: ClassMap) -> None:
    path = make_map(tmp_path, random_labels(60, 60, classes=3), class_map)
    assert sidecar(path) == tmp_path / "map.tif.aux.xml"
    assert _names(path) == list(class_map.names)


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
def test_gdal_reads_the_class_names(tmp_path: Path) -> None:
    path = make_map(tmp_path, random_labels(60, 60, classes=3), ODD_NAMES)
    told = subprocess.run(["gdalinfo", path], capture_output=True, check=True).stdout.decode("utf-8")
    for land_class in ODD_NAMES.classes:
        assert f"      {land_class.id}: {land_class.name}\n" in told


def test_what_the_sidecar_holds_already_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    sidecar(path).write_text(
        "<PAMDataset><SRS>somewhere</SRS><PAMRasterBand band='1'><Description>d</Description>"
        "<CategoryNames><Category>old</Category></CategoryNames></PAMRasterBand></PAMDataset>"
    )
    write_category_names(path, ("a", "b"))
    root = ElementTree.parse(sidecar(path)).getroot()
    assert root.findtext("SRS") == "somewhere"
    assert root.findtext("PAMRasterBand/Description") == "d"
    assert _names(path) == ["a", "b"]


def test_a_map_tells_how_it_was_made(tmp_path: Path) -> None:
    with rasterio.open(make_map(tmp_path, random_labels(60, 60), SALAK)) as dataset:
        tags = dataset.tags()
    assert tags["model"] == "model.onnx"
    assert (tags["tile"], tags["overlap"]) == ("512", "128")
    assert tags["TIFFTAG_SOFTWARE"].startswith("salakseg")
    assert ClassMap.from_records(json.loads(tags["classes"])).same_as(SALAK)


def test_stripes_that_end_within_a_block_are_completed_in_place(tmp_path: Path) -> None:
    label_HW = random_labels(700, 600)
    path = tmp_path / "scratch.tif"
    with create_map(path, crs=None, transform=UTM, height=700, width=600, class_map=SALAK, tags={}) as dataset:
        for row in range(0, 700, 90):
            part = label_HW[row : row + 90]
            dataset.write(part, 1, window=Window(0, row, 600, len(part)))
    write_cog(path, tmp_path / "map.tif", SALAK)
    np.testing.assert_array_equal(
        count_classes(tmp_path / "map.tif", 7), np.bincount(label_HW.ravel(), minlength=7)[:7]
    )


def test_a_map_that_cannot_be_written_or_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match=r"map\.tif cannot be written"):
        write_cog(tmp_path / "missing.tif", tmp_path / "map.tif", SALAK)
    with pytest.raises(RasterError, match=r"nothing\.tif cannot be read"):
        count_classes(tmp_path / "nothing.tif", 7)


# --- the preview --------------------------------------------------------------------------------------------------


def make_orthomosaic(path: Path, height: int, width: int, crs: str | None = "EPSG:32749") -> Path:
    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8", "nodata": 0}
    with rasterio.open(path, "w", crs=crs, transform=UTM, **profile) as dataset:
        dataset.write(np.random.default_rng(0).integers(1, 256, (3, height, width), dtype=np.uint8))
        dataset.write(np.zeros((3, height // 4, width // 4), np.uint8), window=Window(0, 0, width // 4, height // 4))
    return path


@pytest.mark.parametrize("crs", ["EPSG:32749", None])
def test_the_preview_shows_both_and_the_classes_present(tmp_path: Path, crs: str | None) -> None:
    label_HW = random_labels(600, 400)
    label_HW[label_HW == 3] = 4  # class 3 is absent
    orthomosaic = make_orthomosaic(tmp_path / "o.tif", 600, 400, crs)
    write_preview(orthomosaic, make_map(tmp_path, label_HW), tmp_path / "preview.png", SALAK, max_side=600)
    picture = np.asarray(Image.open(tmp_path / "preview.png").convert("RGB"))
    assert picture.shape[1] == 2 * 400 + 36
    shown_px = [(picture == land_class.color).all(axis=2).sum() for land_class in SALAK.classes]
    assert shown_px[3] == 0
    shown = picture[64 : 64 + 600, 424 : 424 + 400]  # below the title, right of the orthomosaic
    colors = np.concatenate([SALAK.colors, np.full((249, 3), 255, np.uint8)])  # transparent is white
    assert (shown == colors[label_HW]).all(axis=2)[2:-2, 2:-2].mean() > 0.999
    assert (picture[64 + 5 : 64 + 145, 17:107] == 255).all()  # so is the orthomosaic's invalid corner
    assert not (tmp_path / ".preview.png.part").exists()


def test_the_preview_refuses_a_map_of_something_else(tmp_path: Path) -> None:
    orthomosaic = make_orthomosaic(tmp_path / "o.tif", 60, 40)
    other = make_map(tmp_path, random_labels(50, 40))
    with pytest.raises(RasterError, match=r"map\.tif has 40 x 50 pixels, .*o\.tif 40 x 60"):
        write_preview(orthomosaic, other, tmp_path / "preview.png", SALAK)
    assert not (tmp_path / "preview.png").exists()


@pytest.mark.parametrize(("width_m", "length_m"), [(100, 20), (79, 10), (8, 2), (4, 1), (50_000, 10_000), (0.5, 0.1)])
def test_scale_bars_are_round_and_short(width_m: float, length_m: float) -> None:
    assert scale_length(width_m) == pytest.approx(length_m)
