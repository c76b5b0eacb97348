"""A map that fails midway leaves finished stripes, or nothing, and never half a map.

Axes: C red green blue, H rows, W columns.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disks import no_file_beyond
from rasters import read_map, write_raster
from small_engines import BrightnessEngine, FailingEngine, brightness_class, content, kept, random_rgb

from salakseg.errors import RasterError
from salakseg.mapping import finish
from salakseg.mapping.assemble import assemble
from salakseg.mapping.finish import Outputs
from salakseg.mapping.layers import CONFIDENCE, PROBABILITIES
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.predict import predict_map
from salakseg.mapping.settings import MapSettings
from salakseg.mapping.stripes import StripeFolder
from salakseg.mapping.summary import Progress

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_a_file_that_breaks_off_midway_leaves_no_map(tmp_path: Path) -> None:
    whole = write_raster(tmp_path / "o.tif", random_rgb(400, 400), tiled=True, blockxsize=128, blockysize=128)
    whole.write_bytes(whole.read_bytes()[:250_000])
    with pytest.raises(RasterError) as caught:
        predict_map(whole, tmp_path / "map.tif", BrightnessEngine())
    assert str(whole) in str(caught.value)
    assert "damaged or incomplete" in str(caught.value)
    assert kept(tmp_path, "o.tif")
    # What is finished serves the remedy that the message names.
    settings = MapSettings(source=SourceOptions(skip_bad_blocks=True))
    summary = predict_map(whole, tmp_path / "map.tif", BrightnessEngine(), settings, resume=True)
    assert summary.resumed > 0
    predict_map(whole, tmp_path / "unbroken.tif", BrightnessEngine(), settings)
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "unbroken.tif").read_bytes()


FAILURES = [RuntimeError("out of memory"), KeyboardInterrupt(), RasterError("late")]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_before_the_first_stripe_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))
    with pytest.raises(type(failure)):
        predict_map(source, tmp_path / "map.tif", FailingEngine(failure), batch_size=2)
    assert [path.name for path in tmp_path.iterdir()] == ["o.tif"]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_midway_leaves_no_map(tmp_path: Path, failure: BaseException) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))
    outputs = Outputs(tmp_path / "map.tif", tmp_path / "confidence.tif", tmp_path / "probabilities.tif")
    with pytest.raises(type(failure)):
        predict_map(source, outputs, FailingEngine(failure, batches=20), batch_size=2)
    # 40 of 8 x 8 tiles: five rows are through, the fifth only when the sixth begins
    assert kept(tmp_path, "o.tif") == [f"stripe-0000-{stripe:06d}.json" for stripe in range(4)]


def test_an_interruption_between_tiles_leaves_no_map(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))

    def interrupt(progress: Progress) -> None:
        if progress.done > progress.total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_map(source, tmp_path / "map.tif", BrightnessEngine(), progress=interrupt)
    assert kept(tmp_path, "o.tif")


def test_overwriting_replaces_the_map_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    first = write_raster(tmp_path / "first.tif", random_rgb(200, 200, 1))
    second_CHW = random_rgb(200, 200, 2)
    second = write_raster(tmp_path / "second.tif", second_CHW)
    out = tmp_path / "map.tif"
    predict_map(first, out, BrightnessEngine())
    before = content(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        predict_map(second, out, FailingEngine(KeyboardInterrupt()), overwrite=True)
    assert content(tmp_path) == before
    with pytest.raises(KeyboardInterrupt):
        predict_map(second, out, FailingEngine(KeyboardInterrupt(), batches=40), overwrite=True)
    assert kept(tmp_path, *before)
    assert {name: content(tmp_path)[name] for name in before} == before
    predict_map(second, out, BrightnessEngine(), overwrite=True)
    np.testing.assert_array_equal(read_map(out), brightness_class(second_CHW))
    files = ["first.tif", "map.qml", "map.tif", "map.tif.aux.xml", "second.tif"]
    assert sorted(content(tmp_path)) == files


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX thing")
@pytest.mark.parametrize("size", [3_000, 9_000, 300_000], ids=["a stripe", "the end of a stripe", "the map"])
def test_a_full_disk_leaves_no_map_and_with_space_it_goes_on(tmp_path: Path, size: int) -> None:
    image_CHW = random_rgb(1100, 1200)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    with no_file_beyond(size), pytest.raises(RasterError) as caught:
        predict_map(source, tmp_path / "map.tif", BrightnessEngine(256))
    for words in (str(tmp_path / "map.tif"), "written", "is the disk full?"):
        assert words in str(caught.value)
    stripes = kept(tmp_path, "o.tif")
    assert len(stripes) == (6 if size == 300_000 else 0)
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(256), resume=True)
    assert summary.resumed == len(stripes)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX thing")
@pytest.mark.parametrize("size", [100, 5_000, 9_292, 13_188], ids=["no stripe", "pixels", "directory", "last stripe"])
def test_a_stripe_that_did_not_fit_on_the_disk_is_never_taken_for_done(tmp_path: Path, size: int) -> None:
    """GDAL keeps small files in memory until it closes them, and is silent if they do not fit then."""
    image_CHW = random_rgb(300, 600)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    with no_file_beyond(size), pytest.raises(RasterError, match=r"map\.tif cannot be written"):
        predict_map(source, tmp_path / "map.tif", BrightnessEngine(64))
    predict_map(source, tmp_path / "map.tif", BrightnessEngine(64), resume=True)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))


@pytest.mark.parametrize(("wanted", "name"), [(CONFIDENCE, "confidence"), (PROBABILITIES, "prob")])
def test_a_layer_that_was_cut_off_unnoticed_gets_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, name: str
) -> None:
    """GDAL closes a file that did not fit on the disk without a word."""
    source = write_raster(tmp_path / "o.tif", random_rgb(300, 400))
    outputs = Outputs(tmp_path / "map.tif", tmp_path / "confidence.tif", tmp_path / "prob.tif")

    def cut_off(stripes: StripeFolder, layer: str, path: Path, *arguments: Any) -> None:
        assemble(stripes, layer, path, *arguments)
        if layer == wanted:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))

    with monkeypatch.context() as patched, pytest.raises(RasterError, match=rf"{name}\.tif could not be written com"):
        patched.setattr(finish, "assemble", cut_off)
        predict_map(source, outputs, BrightnessEngine(64))
    assert kept(tmp_path, "o.tif")
    assert predict_map(source, outputs, BrightnessEngine(64), resume=True).tiles_run == 0
    files = ["confidence.tif", "map.qml", "map.tif", "map.tif.aux.xml", "o.tif", "prob.tif"]
    assert sorted(content(tmp_path)) == files
