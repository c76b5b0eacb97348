"""What cannot be mapped is refused in one sentence, and leaves nothing behind; real files are mapped or refused.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window
from rasters import write_raster
from small_engines import BrightnessEngine, brightness_class, random_rgb, refused

from salakseg.classes import SALAK, ClassMap
from salakseg.errors import EngineError
from salakseg.mapping.predict import predict_map
from salakseg.mapping.settings import MapSettings

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SHARED = Path(__file__).parents[1].parent / "shared/data"


# --- refusals leave nothing behind --------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [-1, 32, 40])
def test_an_impossible_overlap_is_refused(tmp_path: Path, overlap: int) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    refused(
        source,
        tmp_path / "map.tif",
        str(source),
        f"overlap of {overlap}",
        "0 to 31",
        settings=MapSettings(overlap=overlap),
    )


def test_paths_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    refused(source, tmp_path / "none" / "map.tif", str(tmp_path / "none" / "map.tif"), "does not exist")
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(source, folder, str(folder), "is a folder")
    refused(source, source, str(source), "the orthomosaic itself", overwrite=True)
    (tmp_path / "link.tif").hardlink_to(source)
    refused(source, tmp_path / "link.tif", "the orthomosaic itself", overwrite=True)
    (tmp_path / "map.tif").write_bytes(b"precious")
    refused(source, tmp_path / "map.tif", str(tmp_path / "map.tif"), "--overwrite")


def test_sources_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no picture")
    grey = write_raster(tmp_path / "grey.tif", random_rgb(50, 60)[:1], colorinterp=[ColorInterp.gray])
    nowhere = write_raster(tmp_path / "nowhere.tif", random_rgb(50, 60), crs=None)
    for source in (tmp_path / "missing.tif", tmp_path / "text.tif", grey, nowhere):
        refused(source, tmp_path / "map.tif", str(source))


# --- models that misbehave ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    class Overflowing(BrightnessEngine):
        def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
            prob_BKHW = super().predict(image_BCHW)
            prob_BKHW[-1, 3, 5, 5] = value
            return prob_BKHW

    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    with pytest.raises(EngineError, match=r"brightness gave probabilities that are not finite on .*o\.tif"):
        predict_map(source, tmp_path / "map.tif", Overflowing())
    assert [path.name for path in tmp_path.iterdir()] == ["o.tif"]


def test_a_model_with_other_classes_than_it_says_is_refused(tmp_path: Path) -> None:
    engine = BrightnessEngine()
    engine.class_map = ClassMap(SALAK.classes[:4])
    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    with pytest.raises(EngineError, match="brightness gave probabilities of shape"):
        predict_map(source, tmp_path / "map.tif", engine)


def test_a_batch_needs_at_least_one_tile(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(50, 60))
    with pytest.raises(ValueError, match="batch_size"):
        predict_map(source, tmp_path / "map.tif", BrightnessEngine(), batch_size=0)


# --- files as users have them -------------------------------------------------------------------------------------

REAL_FILES: list[Any] = sorted(
    path for folder in ("geotiff-kinds", "orthomosaics") for path in (SHARED / folder).glob("*.[tv][ir][ft]")
)
ABSENT = pytest.param(SHARED, marks=pytest.mark.skip(reason="the shared imagery is not beside this checkout"))


@pytest.mark.parametrize("source", REAL_FILES or [ABSENT], ids=lambda path: path.name)
def test_real_files_are_mapped_or_refused_clearly(tmp_path: Path, source: Path) -> None:
    with rasterio.open(source) as dataset:
        dtype = dataset.dtypes[0]
    if dtype != "uint8":
        refused(source, tmp_path / "map.tif", str(source), dtype, "--scale")
        return
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(tile=512))
    valid = 0
    with rasterio.open(source) as dataset, rasterio.open(tmp_path / "map.tif") as made:
        assert (made.crs, made.transform, made.shape) == (dataset.crs, dataset.transform, dataset.shape)
        for row in range(0, dataset.height, 1024):  # some of them are large
            rows = Window(0, row, dataset.width, min(1024, dataset.height - row))
            valid_HW = dataset.dataset_mask(window=rows) > 0
            label_HW = brightness_class(dataset.read([1, 2, 3], window=rows))
            np.testing.assert_array_equal(made.read(1, window=rows), np.where(valid_HW, label_HW, 255))
            valid += int(np.count_nonzero(valid_HW))
        assert summary.valid_share == pytest.approx(valid / (dataset.width * dataset.height))
