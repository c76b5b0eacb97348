"""What changes between two runs, or lies in their way: nothing is mixed, nothing of the user's is lost."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import command, write_scene, write_tiny_onnx

from salakseg.errors import ClusterError, EngineError, RasterError
from salakseg.mapping.cluster import connect
from salakseg.mapping.finish import Outputs
from salakseg.mapping.predict import predict_map
from salakseg.mapping.settings import MapSettings
from salakseg.mapping.summary import Progress
from salakseg.mapping.workplace import workplace_path
from salakseg.network.digest import sha256_of
from salakseg.network.engine import Engine
from salakseg.network.opening import EngineSpec, ModelFile, open_engine

TILE = 64


class Stop(Exception):
    pass


@pytest.fixture
def field(tmp_path: Path) -> Path:
    write_scene(tmp_path / "ortho.tif", 500, 700)
    write_tiny_onnx(tmp_path / "model.onnx", TILE)
    return tmp_path


def engine(field: Path) -> Engine:
    return open_engine(EngineSpec((ModelFile(field / "model.onnx", "model.onnx"),)))


def stop_midway(field: Path, out: Path, share: float = 0.5, **options: object) -> None:
    def report(progress: Progress) -> None:
        if progress.done > share * progress.total:
            raise Stop

    with pytest.raises(Stop):
        predict_map(field / "ortho.tif", out, engine(field), progress=report, **options)  # type: ignore[arg-type]


def test_other_panels_are_no_stripes_of_ours(field: Path) -> None:
    out = field / "map.tif"
    stop_midway(field, out, max_memory_mb=137)
    with pytest.raises(RasterError, match=r"--batch-size and --max-memory\) begin at was"):
        predict_map(field / "ortho.tif", out, engine(field), max_memory_mb=2000, resume=True)
    predict_map(field / "ortho.tif", out, engine(field), max_memory_mb=137, resume=True)
    predict_map(field / "ortho.tif", field / "whole.tif", engine(field))
    with rasterio.open(out) as split, rasterio.open(field / "whole.tif") as whole:
        np.testing.assert_array_equal(split.read(), whole.read())


def test_parts_of_a_virtual_raster_that_change_are_noticed(field: Path) -> None:
    (field / "ortho.tif").rename(field / "part.tif")
    with rasterio.open(field / "part.tif") as part:
        wkt, gdal = part.crs.to_wkt(), ", ".join(map(str, part.transform.to_gdal()))
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{name}</ColorInterp><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">part.tif</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for band, name in enumerate(("Red", "Green", "Blue", "Alpha"), start=1)
    )
    virtual = f'<VRTDataset rasterXSize="700" rasterYSize="500"><SRS>{wkt}</SRS><GeoTransform>{gdal}</GeoTransform>'
    (field / "ortho.tif").write_text(f"{virtual}{bands}</VRTDataset>")
    stop_midway(field, field / "map.tif")
    write_scene(field / "part.tif", 500, 700)
    with pytest.raises(RasterError, match=r"part\.tif was .* bytes, changed"):
        predict_map(field / "ortho.tif", field / "map.tif", engine(field), resume=True)


def test_a_source_that_changes_while_it_is_mapped_is_told(field: Path) -> None:
    def touch(progress: Progress) -> None:
        if progress.done == progress.total:
            (field / "ortho.tif").touch()

    with pytest.raises(RasterError, match=r"ortho\.tif was changed while it was mapped"):
        predict_map(field / "ortho.tif", field / "map.tif", engine(field), progress=touch)
    assert not (field / "map.tif").exists()


@pytest.mark.parametrize("ending", [".json", ".tif"])
@pytest.mark.parametrize("damage", ["emptied", "torn", "flipped", "gone"])
def test_a_spoilt_stripe_is_made_again(field: Path, ending: str, damage: str) -> None:
    outputs = Outputs(field / "map.tif", field / "conf.tif")

    def report(progress: Progress) -> None:
        if progress.done > progress.total / 2:
            raise Stop

    with pytest.raises(Stop):
        predict_map(field / "ortho.tif", outputs, engine(field), progress=report)
    folder = workplace_path(outputs.classes)
    victim = sorted(folder.glob(f"stripe-*{ending}" if ending == ".json" else "confidence-*.tif"))[2]
    content = victim.read_bytes()
    middle = len(content) // 2
    if damage == "gone":
        victim.unlink()
    else:
        flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        victim.write_bytes({"emptied": b"", "torn": content[:middle], "flipped": flipped}[damage])
    predict_map(field / "ortho.tif", outputs, engine(field), resume=True)
    whole = Outputs(field / "whole.tif", field / "whole_conf.tif")
    predict_map(field / "ortho.tif", whole, engine(field))
    assert outputs.classes.read_bytes() == whole.classes.read_bytes()
    assert (field / "conf.tif").read_bytes() == (field / "whole_conf.tif").read_bytes()


@pytest.mark.parametrize("content", ["", "[]", None])
def test_a_damaged_manifest_has_a_remedy(field: Path, content: str | None) -> None:
    stop_midway(field, field / "map.tif")
    manifest = workplace_path(field / "map.tif") / "made_from.json"
    manifest.unlink()
    if content is not None:
        manifest.write_text(content)
    with pytest.raises(RasterError, match=r"map\.tif cannot be resumed.*--overwrite"):
        predict_map(field / "ortho.tif", field / "map.tif", engine(field), resume=True)
    predict_map(field / "ortho.tif", field / "map.tif", engine(field), overwrite=True)


def test_a_foreign_folder_in_the_way_does_no_harm(field: Path) -> None:
    folder = workplace_path(field / "map.tif")
    (folder / "notes").mkdir(parents=True)
    predict_map(field / "ortho.tif", field / "map.tif", engine(field))
    assert (field / "map.tif").exists()
    assert not folder.exists()


def test_a_finished_map_of_something_else_is_not_taken_over(field: Path) -> None:
    flags = ["--model", field / "model.onnx", "--device", "cpu", "--out", field / "map.tif"]
    command("predict", field / "ortho.tif", *flags)
    write_scene(field / "other.tif", 90, 80)
    told = command("predict", field / "other.tif", *flags, "--resume", "--areas", field / "a.csv", status=1).output
    assert "was made from something else (orthomosaic" in told
    told = command("predict", field / "ortho.tif", *flags, "--resume", "--overlap", 20, status=1).output
    assert "(overlap)" in told
    assert not (field / "a.csv").exists()


def test_what_is_older_than_the_map_is_made_again(field: Path) -> None:
    flags = ["--model", field / "model.onnx", "--device", "cpu", "--out", field / "map.tif"]
    (field / "areas.csv").write_text("of an earlier map")
    command("predict", field / "ortho.tif", *flags)
    command("predict", field / "ortho.tif", *flags, "--areas", field / "areas.csv", "--resume")
    assert "hectares" in (field / "areas.csv").read_text()
    (field / "areas.csv").write_text("newer than the map: the user's own notes")
    command("predict", field / "ortho.tif", *flags, "--areas", field / "areas.csv", "--resume")
    assert "own notes" in (field / "areas.csv").read_text()


def test_a_style_of_the_users_own_stays(field: Path) -> None:
    (field / "map.qml").write_text("mine")
    predict_map(field / "ortho.tif", field / "map.tif", engine(field))
    assert (field / "map.qml").read_text() == "mine"
    predict_map(field / "ortho.tif", field / "map.tif", engine(field), overwrite=True)
    assert "paletted" in (field / "map.qml").read_text()


def test_no_output_replaces_another_tasks_orthomosaic(field: Path) -> None:
    shutil.copy(field / "ortho.tif", field / "ortho_c.tif")
    before = (field / "ortho_c.tif").read_bytes()
    told = command(
        "predict", field / "ortho.tif", field / "ortho_c.tif", "--out-dir", field, "--confidence", "{name}_c.tif",
        "--overwrite", "--model", field / "model.onnx", status=1,
    ).output  # fmt: skip
    assert "ortho_c.tif is the orthomosaic itself" in told
    assert (field / "ortho_c.tif").read_bytes() == before


def test_two_names_of_one_file_clash(field: Path) -> None:
    (field / "link").symlink_to(field)
    told = command(
        "predict", field / "ortho.tif", "--out", field / "m.tif", "--confidence", field / "link" / "m.tif",
        "--model", field / "model.onnx", status=1,
    ).output  # fmt: skip
    assert "written twice" in told


def test_a_folder_gives_neither_maps_nor_parts_of_a_mosaic(field: Path) -> None:
    flags = ["--model", field / "model.onnx", "--device", "cpu", "--out-dir", field, "--probabilities", "{name}_p.tif"]
    command("predict", field, *flags)
    command("predict", field, *flags, "--resume")
    assert sorted(path.name for path in field.glob("*.tif")) == ["ortho.tif", "ortho_map.tif", "ortho_p.tif"]


def test_a_worker_with_another_model_file_refuses(field: Path) -> None:
    path = field / "model.onnx"
    spec = EngineSpec((ModelFile(path, "model.onnx", sha256_of(path)),))
    open_engine(spec)
    write_tiny_onnx(path, TILE, gsd_m=0.5)
    with pytest.raises(EngineError, match=r"model\.onnx is another file here"):
        open_engine(spec)


@pytest.mark.parametrize("address", ["foo", "tcp://", "host:8786", "tcp://host"])
def test_an_address_that_is_none_is_told_at_once(address: str) -> None:
    with pytest.raises(ClusterError, match="looks like tcp://"), connect(address, None):
        pass


def test_scheduler_and_workers_exclude_each_other(field: Path) -> None:
    flags = ["--out", field / "m.tif", "--workers", 2, "--scheduler", "tcp://127.0.0.1:8786"]
    assert "give one of them" in command("predict", field / "ortho.tif", *flags, status=2).output


@pytest.mark.parametrize("out_gsd", [0.0001, 100.0])
def test_a_map_of_absurd_pixels_is_refused(field: Path, out_gsd: float) -> None:
    with pytest.raises(RasterError, match=r"--out-gsd .*; choose 0\.005 to 50 m"):
        predict_map(field / "ortho.tif", field / "map.tif", engine(field), MapSettings(out_gsd=out_gsd))
    assert not (field / "map.tif").exists()


def test_probabilities_of_odd_sizes_are_the_same_to_the_byte(field: Path) -> None:
    found = []
    for name in ("one", "two"):
        outputs = Outputs(field / f"{name}.tif", probabilities=field / f"{name}_p.tif")
        predict_map(field / "ortho.tif", outputs, engine(field), MapSettings(probability_type="float16"))
        found.append((field / f"{name}_p.tif").read_bytes())
    assert found[0] == found[1]


def test_areas_of_a_coarse_map_are_those_of_the_ground(field: Path) -> None:
    write_scene(field / "ortho.tif", 503, 711)  # the last pixels of the map stick out
    exact = predict_map(field / "ortho.tif", field / "fine.tif", engine(field))
    coarse = predict_map(field / "ortho.tif", field / "coarse.tif", engine(field), MapSettings(out_gsd=0.6))
    total = [sum(area.hectares or 0 for area in summary.areas) for summary in (exact, coarse)]
    assert total[1] == pytest.approx(total[0], rel=0.02)


def test_records_are_plain_json(field: Path) -> None:
    stop_midway(field, field / "map.tif")
    record = json.loads(next(workplace_path(field / "map.tif").glob("stripe-*.json")).read_text())
    assert record["width"] == 700
    assert sum(record["counts"]) == record["height"] * record["width"]
