"""A map that was stopped is gone on with, to the byte, by who may.

Axes: B tiles, K classes, C red green blue, H rows, W columns.
"""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from filelock import FileLock
from numpy.typing import NDArray
from rasters import read_map, write_raster
from small_engines import (
    BrightnessEngine,
    SmoothEngine,
    blotches,
    brightness_class,
    content,
    kept,
    random_rgb,
    refused,
    round_alpha,
)

from salakseg.errors import RasterError
from salakseg.mapping import finish, predict
from salakseg.mapping.files import move_whole
from salakseg.mapping.finish import Outputs
from salakseg.mapping.layers import ProbabilityType
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.predict import predict_map
from salakseg.mapping.raster import Orthomosaic
from salakseg.mapping.settings import MapSettings
from salakseg.mapping.stretch import Stretch
from salakseg.mapping.summary import Progress
from salakseg.mapping.workplace import is_unfinished, workplace_path

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[Path, Path]:
    """An orthomosaic and a map of it that was stopped midway."""
    source = write_raster(tmp_path / "o.tif", np.concatenate([blotches(200, 200), round_alpha(200, 200)]))
    stop(source, tmp_path / "map.tif")
    return source, tmp_path / "map.tif"


def stop(source: Path, outputs: Path | Outputs, settings: MapSettings | None = None, batches: int = 30) -> None:
    class Stopped(SmoothEngine):
        def predict(self, image_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
            if len(self.shapes) == batches:
                raise KeyboardInterrupt
            return super().predict(image_BCHW)

    with pytest.raises(KeyboardInterrupt):
        predict_map(source, outputs, Stopped(), settings)
    out = outputs.classes if isinstance(outputs, Outputs) else outputs
    assert list(workplace_path(out).glob("stripe-*.json"))


def test_a_stopped_map_is_gone_on_with_only_when_asked(stopped: tuple[Path, Path]) -> None:
    source, out = stopped
    folder = str(workplace_path(out))
    refused(source, out, folder, "go on with --resume", "begin anew with --overwrite")


def test_a_resumed_map_is_that_of_an_unbroken_run(stopped: tuple[Path, Path]) -> None:
    source, out = stopped
    unbroken = predict_map(source, out.with_name("unbroken.tif"), SmoothEngine())
    calls: list[Progress] = []
    resumed = predict_map(source, out, SmoothEngine(), resume=True, progress=calls.append)
    assert resumed.resumed > 0
    assert resumed.tiles_run < unbroken.tiles_run
    assert out.read_bytes() == out.with_name("unbroken.tif").read_bytes()
    np.testing.assert_array_equal(resumed.class_counts, unbroken.class_counts)
    assert resumed.areas == unbroken.areas
    assert calls[0].done > 40_000 // 8  # what was there already counts
    assert calls[-1].done == calls[-1].total == 40_000
    assert all(before.done <= after.done for before, after in pairwise(calls))
    names = {"map", "unbroken"}
    assert content(out.parent).keys() == {
        "o.tif",
        *(f"{name}{end}" for name in names for end in (".qml", ".tif", ".tif.aux.xml")),
    }


@pytest.mark.parametrize(
    ("gsd_m", "out_gsd", "panel_width", "batches", "kind"),
    [
        (None, None, 80, 20, "uint8"),
        (None, None, 80, 70, "float16"),
        (0.08, None, 80, 15, "uint8"),
        (0.04, 0.11, 90, 60, "float16"),
        (None, 0.3, 8192, 30, "uint8"),
    ],
)
def test_a_map_on_any_grid_is_resumed_to_the_byte(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gsd_m: float | None,
    out_gsd: float | None,
    panel_width: int,
    batches: int,
    kind: ProbabilityType,
) -> None:
    """Stopped in several places, with all that can be written."""
    monkeypatch.setattr(predict, "PANEL_WIDTH", panel_width)
    source = write_raster(tmp_path / "o.tif", np.concatenate([blotches(200, 200), round_alpha(200, 200)]))
    settings = MapSettings(gsd="off" if gsd_m is None else gsd_m, out_gsd=out_gsd, probability_type=kind)
    whole, broken = (
        Outputs(*(tmp_path / name / f"{layer}.tif" for layer in ("map", "confidence", "probabilities")))
        for name in ("whole", "broken")
    )
    whole.classes.parent.mkdir()
    broken.classes.parent.mkdir()
    predict_map(source, whole, SmoothEngine(), settings)
    stop(source, broken, settings, batches)
    summary = predict_map(source, broken, SmoothEngine(), settings, resume=True)
    assert summary.resumed > 0
    found, expected = content(broken.classes.parent), content(whole.classes.parent)
    if kind == "float16":
        # What sticks out of the raster in the last blocks GDAL fills with what is in memory: the pixels are the same.
        del found["probabilities.tif"], expected["probabilities.tif"]
        with (
            rasterio.open(broken.classes.with_name("probabilities.tif")) as one,
            rasterio.open(whole.classes.with_name("probabilities.tif")) as other,
        ):
            assert one.tags() == other.tags()
            np.testing.assert_array_equal(one.read(), other.read())
    assert found == expected


def test_resuming_what_was_never_begun_is_a_beginning(tmp_path: Path) -> None:
    image_CHW = random_rgb(50, 60)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    summary = predict_map(source, tmp_path / "map.tif", BrightnessEngine(), resume=True)
    assert summary.resumed == 0
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (MapSettings(overlap=9), "overlap was 6, is 9"),
        (MapSettings(window="flat"), "window was hann, is flat"),
        (MapSettings(gsd=0.1), "model_pixel was 1 x 1 pixels of the orthomosaic, is 2 x 2"),
        (MapSettings(out_gsd=0.1), "map_pixel was 1 x 1 pixels of the orthomosaic, is 2 x 2"),
        (MapSettings(source=SourceOptions(bands=(3, 2, 1))), "bands was 1,2,3, is 3,2,1"),
        (MapSettings(source=SourceOptions(stretch=Stretch(0, 200))), "scale was none, is 0,200"),
    ],
)
def test_a_map_is_resumed_with_its_own_settings_only(
    stopped: tuple[Path, Path], settings: MapSettings, words: str
) -> None:
    source, out = stopped
    refused(source, out, str(out), words, "begin anew with --overwrite", settings=settings, resume=True)
    resumed = predict_map(source, out, SmoothEngine(), resume=True)
    assert resumed.resumed > 0


def test_a_map_is_resumed_with_its_own_model_and_files_only(stopped: tuple[Path, Path]) -> None:
    source, out = stopped
    engine = SmoothEngine()
    engine.identity = {"model": "brightness", "model_sha256": "other"}
    before = content(out.parent)
    with pytest.raises(RasterError, match="model_sha256 was None, is other"):
        predict_map(source, out, engine, resume=True)
    with pytest.raises(RasterError, match="layers was "):
        predict_map(source, Outputs(out, out.with_name("confidence.tif")), SmoothEngine(), resume=True)
    assert content(out.parent) == before
    write_raster(source, np.concatenate([blotches(200, 200, 1), round_alpha(200, 200)]))
    with pytest.raises(RasterError, match=r"\.tif was .* bytes, changed"):
        predict_map(source, out, SmoothEngine(), resume=True)


def test_overwriting_begins_a_stopped_map_anew(stopped: tuple[Path, Path]) -> None:
    source, out = stopped
    settings = MapSettings(overlap=3)
    unbroken = predict_map(source, out.with_name("unbroken.tif"), SmoothEngine(), settings)
    summary = predict_map(source, out, SmoothEngine(), settings, overwrite=True)
    assert (summary.resumed, summary.tiles_run) == (0, unbroken.tiles_run)
    assert out.read_bytes() == out.with_name("unbroken.tif").read_bytes()
    assert not workplace_path(out).exists()


def test_a_failure_at_the_very_end_costs_no_inference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(finish, "areas_of", fail)
        predict_map(source, tmp_path / "map.tif", BrightnessEngine())
    assert len(kept(tmp_path, "o.tif")) == 8
    engine = BrightnessEngine()
    summary = predict_map(source, tmp_path / "map.tif", engine, resume=True)
    assert (summary.resumed, summary.tiles_run, engine.shapes) == (8, 0, [])
    predict_map(source, tmp_path / "unbroken.tif", BrightnessEngine())
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "unbroken.tif").read_bytes()


def test_a_map_that_was_stopped_while_its_files_got_their_names_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_raster(tmp_path / "o.tif", random_rgb(200, 200))
    outputs = Outputs(tmp_path / "map.tif", tmp_path / "confidence.tif")
    put = move_whole

    def put_confidence_only(whole: Path, out: Path) -> None:
        if out == outputs.classes:
            raise KeyboardInterrupt
        put(whole, out)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(finish, "move_whole", put_confidence_only)
        predict_map(source, outputs, BrightnessEngine())
    assert kept(tmp_path, "o.tif", "confidence.tif")
    summary = predict_map(source, outputs, BrightnessEngine(), resume=True)
    assert (summary.resumed, summary.tiles_run) == (8, 0)


@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (False, True), (True, False), (True, True)])
def test_a_map_that_is_being_made_is_left_to_who_makes_it(tmp_path: Path, resume: bool, overwrite: bool) -> None:
    settings = MapSettings(overlap=3)
    image_CHW = random_rgb(200, 200)
    source = write_raster(tmp_path / "o.tif", image_CHW)
    refusals: list[str] = []

    def intrude(progress: Progress) -> None:
        if not refusals and progress.done > progress.total // 2:
            with pytest.raises(RasterError) as caught:
                predict_map(
                    source, tmp_path / "map.tif", BrightnessEngine(), settings, resume=resume, overwrite=overwrite
                )
            refusals.append(str(caught.value))

    predict_map(source, tmp_path / "map.tif", BrightnessEngine(), progress=intrude)
    assert refusals == [
        f"{tmp_path / 'map.tif'} is being made by another process; wait for it, or choose another name."
    ]
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), brightness_class(image_CHW))


def test_a_stopped_map_that_another_process_goes_on_with_is_refused(stopped: tuple[Path, Path]) -> None:
    source, out = stopped
    code = (
        "import filelock, sys\nlock = filelock.FileLock(sys.argv[1])\nlock.acquire()\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(workplace_path(out) / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        refused(source, out, str(out), "another process", resume=True)
        refused(source, out, str(out), "another process", overwrite=True)
        other.communicate()
    assert predict_map(source, out, SmoothEngine(), resume=True).resumed > 0


def test_nothing_is_left_where_a_lock_removes_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows; and an empty folder of a map is no unfinished one."""

    class OwnFileRemoved(FileLock):
        def _release(self) -> None:
            super()._release()
            Path(self.lock_file).unlink(missing_ok=True)

    monkeypatch.setattr("salakseg.mapping.workplace.FileLock", OwnFileRemoved)
    source = write_raster(tmp_path / "o.tif", random_rgb(60, 70))
    predict_map(source, tmp_path / "map.tif", BrightnessEngine())
    assert not workplace_path(tmp_path / "map.tif").exists()
    workplace_path(tmp_path / "map.tif").mkdir()
    assert not is_unfinished(tmp_path / "map.tif")
    refused(source, tmp_path / "map.tif", "--overwrite", resume=True)


def test_parts_of_the_same_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    parts = []
    for number in (1, 2):
        (tmp_path / f"flight{number}").mkdir()
        parts.append(write_raster(tmp_path / f"flight{number}" / "ortho.tif", random_rgb(40, 50)))
    stacked = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{color}</ColorInterp><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">flight{1 + (band == 2)}/ortho.tif</SourceFilename>'
        f"<SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for band, color in enumerate(("Red", "Green", "Blue"), 1)
    )
    vrt = tmp_path / "o.vrt"
    vrt.write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">{stacked}</VRTDataset>')
    with Orthomosaic(vrt, SourceOptions(allow_no_crs=True)) as orthomosaic:
        state = orthomosaic.state()
        assert set(state) == {"o.vrt", "flight1/ortho.tif", "flight2/ortho.tif"}
        os.utime(parts[0], (1, 1))
        assert orthomosaic.state() != state
    settings = MapSettings(source=SourceOptions(allow_no_crs=True))
    before = parts[0].read_bytes()
    refused(vrt, parts[0], "ortho.tif is a part of", settings=settings, overwrite=True)
    assert parts[0].read_bytes() == before
