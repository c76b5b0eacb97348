"""Class names, colours and areas where other programs find them."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.errors import RasterError
from salakseg.mapping.assemble import Georeference, assemble
from salakseg.mapping.layers import CLASSES, Layers
from salakseg.mapping.plan import make_plan
from salakseg.mapping.sidecar import sidecar_path, write_class_table
from salakseg.mapping.stripes import StripeFolder, StripeRecord

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


def make_map(folder: Path, label_HW: NDArray[np.uint8], class_map: ClassMap) -> Path:
    """A map as the mapping puts it together, with its table."""
    height, width = label_HW.shape
    plan = make_plan(height, width, tile=128, overlap=0, panel_width=1000)
    stripes = StripeFolder(folder, Layers(len(class_map)))
    opened = stripes.open_stripe(0, 0, StripeRecord(0, 0, height, width))
    opened.write(0, {CLASSES: label_HW[None]})
    opened.commit()
    path = folder / "map.tif"
    assemble(stripes, CLASSES, path, plan, Georeference(rasterio.CRS.from_epsg(32749), UTM), class_map, {})
    write_class_table(path, class_map)
    return path


def _names(path: Path) -> list[str | None]:
    root = ElementTree.parse(sidecar_path(path)).getroot()
    assert root.tag == "PAMDataset"
    return [name.text for name in root.findall("PAMRasterBand[@band='1']/CategoryNames/Category")]


@pytest.mark.parametrize("class_map", [SALAK, ODD_NAMES], ids=["salak", "odd names"])
def test_class_names_stand_in_the_sidecar_path(tmp_path: Path, class_map: ClassMap) -> None:
    path = make_map(tmp_path, random_labels(60, 60, classes=3), class_map)
    assert sidecar_path(path) == tmp_path / "map.tif.aux.xml"
    assert _names(path) == list(class_map.names)


def gdalinfo(path: Path) -> dict[str, Any]:
    """What GDAL itself reads, without a word of warning."""
    done = subprocess.run(["gdalinfo", "-json", path], capture_output=True, check=True)
    assert done.stderr == b""
    told: dict[str, Any] = json.loads(done.stdout.decode("utf-8"))
    return told


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
def test_gdal_reads_the_class_names(tmp_path: Path) -> None:
    path = make_map(tmp_path, random_labels(60, 60, classes=3), ODD_NAMES)
    told = subprocess.run(["gdalinfo", path], capture_output=True, check=True).stdout.decode("utf-8")
    for land_class in ODD_NAMES.classes:
        assert f"      {land_class.id}: {land_class.name}\n" in told
    table = gdalinfo(path)["bands"][0]["colorTable"]["entries"]
    assert [tuple(entry) for entry in table[:3]] == [(*land_class.color, 255) for land_class in ODD_NAMES.classes]


# GDAL's numbers: field types integer 0, real 1, string 2; usages generic 0, count 1, name 2, min-max 5, colours 6 to 8.
CLASS_FIELDS = [("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8)]


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
def test_gdal_reads_the_attribute_table(tmp_path: Path) -> None:
    path = make_map(tmp_path, random_labels(60, 60, classes=3), ODD_NAMES)
    plain = gdalinfo(path)["rat"]
    assert plain["tableType"] == "thematic"
    assert [(field["name"], field["type"], field["usage"]) for field in plain["fieldDefn"]] == CLASS_FIELDS
    classes = [[land_class.id, land_class.name, *land_class.color] for land_class in ODD_NAMES.classes]
    assert [row["f"] for row in plain["row"]] == classes

    counts, hectares = np.array([5_000_000_000, 3600, 0]), np.array([1 / 3, 2.5e-6, 0.0])
    write_class_table(path, ODD_NAMES, counts.tolist(), hectares.tolist())
    full = gdalinfo(path)["rat"]
    fields = [(field["name"], field["type"], field["usage"]) for field in full["fieldDefn"]]
    assert fields == [*CLASS_FIELDS, ("Count", 1, 1), ("Area_ha", 1, 0)]
    assert [row["f"][:5] for row in full["row"]] == classes
    assert [row["f"][5] for row in full["row"]] == counts.tolist()  # more than 2^31, too
    assert [row["f"][6] for row in full["row"]] == pytest.approx(hectares.tolist(), rel=1e-9)


def test_rasterio_opens_a_map_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_map(tmp_path, random_labels(60, 60, classes=3), ODD_NAMES)
    write_class_table(path, ODD_NAMES, [1, 2, 3], [0.1, 0.2, 0.3])
    recwarn.clear()
    caplog.clear()
    with rasterio.Env(), rasterio.open(path) as dataset:
        dataset.read(1)
        assert str(sidecar_path(path)) in dataset.files
    assert not list(recwarn)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_a_table_has_a_row_for_every_class_or_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_class_table(tmp_path / "map.tif", ODD_NAMES, counts=[1, 2])
    assert not list(tmp_path.iterdir())


def test_a_damaged_sidecar_is_named(tmp_path: Path) -> None:
    sidecar_path(tmp_path / "map.tif").write_text("<PAMDataset>")
    with pytest.raises(RasterError, match=r"map\.tif\.aux\.xml cannot be read \(.*\); delete it"):
        write_class_table(tmp_path / "map.tif", ODD_NAMES)


def test_what_the_sidecar_holds_already_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    sidecar_path(path).write_text(
        "<PAMDataset><SRS>somewhere</SRS><PAMRasterBand band='1'><Description>d</Description>"
        "<CategoryNames><Category>old</Category></CategoryNames></PAMRasterBand></PAMDataset>"
    )
    write_class_table(path, ODD_NAMES)
    write_class_table(path, ODD_NAMES)
    root = ElementTree.parse(sidecar_path(path)).getroot()
    assert root.findtext("SRS") == "somewhere"
    assert root.findtext("PAMRasterBand/Description") == "d"
    assert _names(path) == list(ODD_NAMES.names)
    assert len(root.findall("PAMRasterBand/GDALRasterAttributeTable")) == 1
