"""From imagery and labels to a folder of patches, and what a second run makes of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from cutting import (
    DEGREES,
    ROTATED,
    UTM_SOUTH,
    ArrayLabels,
    label_source,
    random_image,
    random_label,
    stitch,
    times,
    tree,
    write_mosaic,
    write_photo,
)
from helpers import SHARED_DATA
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.warp import transform as transform_points

from salakseg.classes import IGNORE_INDEX, SALAK, ClassMap
from salakseg.data.masks import read_image, read_mask
from salakseg.data.patches import count_by_folder, index_patches
from salakseg.errors import DataError
from salakseg.mapping.raster import Orthomosaic
from salakseg.prepare.estimate import estimate
from salakseg.prepare.grid import Grid
from salakseg.prepare.index import class_columns
from salakseg.prepare.request import LabelSource, Request
from salakseg.prepare.run import Summary, prepare

RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
HEIGHT, WIDTH = 150, 210


def run(*sources: Path, out: Path, **more: Any) -> Summary:
    return prepare(Request(sources=sources, root=out, **({"patch": 32} | more)))


def refused(match: str, *sources: Path, out: Path, **more: Any) -> None:
    """The run is refused, and nothing is changed by it."""
    before = times(out) if out.exists() else None
    with pytest.raises(DataError, match=match):
        run(*sources, out=out, **more)
    assert (times(out) if out.exists() else None) == before


@pytest.mark.parametrize("stride", [32, 20, 48])
@pytest.mark.parametrize(
    ("crs", "transform"),
    [("EPSG:32749", UTM_SOUTH), ("EPSG:4326", DEGREES), ("EPSG:32749", ROTATED)],
    ids=["UTM south", "degrees", "rotated"],
)
def test_stitched_patches_are_the_source(tmp_path: Path, crs: str, transform: Affine, stride: int) -> None:
    image_CHW, label_HW = random_image(HEIGHT, WIDTH), random_label(HEIGHT, WIDTH)
    mosaic = write_mosaic(tmp_path / "site.tif", image_CHW, crs=crs, transform=transform)
    summary = run(mosaic, out=tmp_path / "root", labels=label_source(label_HW), stride=stride, min_valid=0)
    found_CHW, found_HW, seen_HW = stitch(tmp_path / "root", "site", HEIGHT, WIDTH, stride)
    np.testing.assert_array_equal(found_CHW[:, seen_HW], image_CHW[:, seen_HW])
    np.testing.assert_array_equal(found_HW[seen_HW], label_HW[seen_HW])
    assert seen_HW.all() == (stride <= 32)
    assert summary.patches == summary.labelled == len(index_patches(tmp_path / "root").patches)


def test_footprints_are_where_the_pixels_are(tmp_path: Path) -> None:
    mosaic = write_mosaic(tmp_path / "site.tif", random_image(HEIGHT, WIDTH), transform=ROTATED)
    label_HW = random_label(HEIGHT, WIDTH)
    run(mosaic, out=tmp_path / "root", labels=label_source(label_HW), stride=20, min_valid=0)
    table = gpd.read_file(tmp_path / "root" / "patches.gpkg", layer="patches")
    assert table.crs.to_epsg() == 32749
    assert list(table.columns[:8]) == ["folder", "image", "source", "row", "col", "split", "valid", "labelled"]
    index = index_patches(tmp_path / "root")
    assert sorted(table.image) == sorted(patch.image for patch in index.patches)
    assert set(table.folder) == {tmp_path.name} and set(table.source) == {"site"} and set(table.split) == {""}
    for one in table.itertuples():
        corners = [(20 * one.col + x, 20 * one.row + y) for x, y in ((0, 0), (32, 0), (32, 32), (0, 32))]
        assert one.geometry.normalize().equals_exact(
            shapely.Polygon([ROTATED * at for at in corners]).normalize(), 1e-6
        )
        part_HW = label_HW[20 * one.row :, 20 * one.col :][:32, :32]
        assert one.valid == part_HW.size / 32**2
        assert one.labelled == (part_HW != IGNORE_INDEX).sum() / 32**2
    shares = table[list(class_columns(SALAK))].sum().to_numpy() * 32**2
    masks = [read_mask(index.mask_path(patch), SALAK).label_HW for patch in index.patches]
    np.testing.assert_allclose(shares, [sum((mask == k).sum() for mask in masks) for k in range(len(SALAK))])


def test_sources_of_two_systems_meet_in_degrees(tmp_path: Path) -> None:
    a = write_mosaic(tmp_path / "a.tif", random_image(64, 64))
    b = write_mosaic(tmp_path / "b.tif", random_image(64, 64), crs="EPSG:32648", transform=ROTATED)
    photo = write_photo(tmp_path / "p.png", random_image(64, 64))
    assert run(a, b, photo, out=tmp_path / "root").indexed
    table = gpd.read_file(tmp_path / "root" / "patches.gpkg")
    assert table.crs.to_epsg() == 4326 and len(table) == 8  # the photo lies nowhere
    first = table[(table.source == "b") & (table.row == 1) & (table.col == 0)].geometry.iloc[0]
    x, y = ROTATED * (16, 48)
    (longitude,), (latitude,) = transform_points("EPSG:32648", "EPSG:4326", [x], [y])
    assert first.centroid.distance(shapely.Point(longitude, latitude)) < 1e-9


def test_photos_alone_have_no_index(tmp_path: Path) -> None:
    summary = run(write_photo(tmp_path / "p.png", random_image(64, 64)), out=tmp_path / "root")
    assert not summary.indexed and not (tmp_path / "root" / "patches.gpkg").exists()
    assert summary.patches == 4


def transparent(tmp_path: Path) -> tuple[Path, NDArray[np.uint8], NDArray[np.bool_]]:
    image_CHW = random_image(HEIGHT, WIDTH)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    valid_HW = x + y > 100
    alpha = np.where(valid_HW, 255, 0).astype(np.uint8)[None]
    return write_mosaic(tmp_path / "o.tif", np.concatenate([image_CHW, alpha]), colorinterp=RGBA), image_CHW, valid_HW


@pytest.mark.parametrize("kind", ["alpha", "nodata"])
def test_what_is_not_valid_is_black_and_ignored(tmp_path: Path, kind: str) -> None:
    path, image_CHW, valid_HW = transparent(tmp_path)
    if kind == "nodata":
        path = write_mosaic(tmp_path / "o.tif", np.where(valid_HW, image_CHW, 0).astype(np.uint8), nodata=0)
    label_HW = random_label(HEIGHT, WIDTH, labelled=1)
    summary = run(path, out=tmp_path / "root", labels=label_source(label_HW), min_valid=0.3)
    found_CHW, found_HW, seen_HW = stitch(tmp_path / "root", "o", HEIGHT, WIDTH, 32)
    np.testing.assert_array_equal(found_CHW[:, seen_HW], np.where(valid_HW, image_CHW, 0)[:, seen_HW])
    np.testing.assert_array_equal(found_HW[seen_HW], np.where(valid_HW, label_HW, IGNORE_INDEX)[seen_HW])
    blocks = np.add.reduceat(np.add.reduceat(valid_HW, range(0, HEIGHT, 32), 0), range(0, WIDTH, 32), 1) / 32**2
    kept = sorted((patch.image for patch in index_patches(tmp_path / "root").patches), key=str)
    assert kept == sorted(f"o_patch_{row:03d}_{col:03d}.png" for row, col in np.argwhere(blocks >= 0.3))
    (source,) = summary.cut
    assert source.left_out == (blocks < 0.3).sum()
    assert source.lost_px == valid_HW.sum() - valid_HW[seen_HW].sum()


def test_nothing_at_all_is_never_a_patch(tmp_path: Path) -> None:
    path, _, valid_HW = transparent(tmp_path)
    assert not valid_HW[:32, :32].any()
    run(path, out=tmp_path / "root", min_valid=0)
    assert not (tmp_path / "root" / tmp_path.name / "images" / "o_patch_000_000.png").exists()


def test_where_nobody_labelled_a_patch_has_no_mask(tmp_path: Path) -> None:
    label_HW = np.full((64, 96), IGNORE_INDEX, np.uint8)
    label_HW[40, 70] = 0  # background is a label
    summary = run(
        write_mosaic(tmp_path / "o.tif", random_image(64, 96)), out=tmp_path / "root", labels=label_source(label_HW)
    )
    assert (summary.patches, summary.labelled) == (6, 1)
    assert [patch.image for patch in index_patches(tmp_path / "root").patches if patch.mask] == ["o_patch_001_002.png"]
    assert summary.class_px_K.tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_labels_that_touch_nothing_are_told(tmp_path: Path) -> None:
    label_HW = np.full((64, 96), IGNORE_INDEX, np.uint8)
    path = write_mosaic(tmp_path / "o.tif", random_image(64, 96))
    summary = run(path, out=tmp_path / "root", labels=label_source(label_HW))
    assert "nothing of it is labelled, though there are labels" in summary.notes[0]
    assert not (tmp_path / "root" / tmp_path.name / "masks").exists()


def test_a_run_that_failed_before_its_first_patch_binds_nobody(tmp_path: Path) -> None:
    path = write_mosaic(tmp_path / "o.tif", random_image(64, 64))
    with pytest.raises(DataError, match="the id 77"):
        run(path, out=tmp_path / "root", labels=label_source(np.full((64, 64), 77, np.uint8)))
    run(path, out=tmp_path / "root", patch=16, labels=label_source(random_label(64, 64)))
    run(path, out=tmp_path / "fresh", patch=16, labels=label_source(random_label(64, 64)))
    assert tree(tmp_path / "root") == tree(tmp_path / "fresh")


def test_sources_without_labels_give_unlabelled_patches(tmp_path: Path) -> None:
    opened = []

    def labels_of(grid: Grid, path: Path) -> ArrayLabels | None:
        opened.append((path.name, grid.height, grid.width, grid.crs.to_epsg()))
        return ArrayLabels(random_label(64, 64)) if path.name == "a.tif" else None

    paths = [write_mosaic(tmp_path / name, random_image(64, 64)) for name in ("a.tif", "b.tif")]
    run(*paths, out=tmp_path / "root", labels=label_source(labels_of))
    assert opened == [("a.tif", 64, 64, 32749), ("b.tif", 64, 64, 32749)]
    assert {p.image[0]: p.mask is not None for p in index_patches(tmp_path / "root").patches} == {"a": True, "b": False}


def test_labels_are_closed_whatever_happens(tmp_path: Path) -> None:
    labels = ArrayLabels(np.full((64, 64), 77, np.uint8))
    path = write_mosaic(tmp_path / "o.tif", random_image(64, 64))
    with pytest.raises(DataError, match=r"o\.tif: its labels hold the id 77, but the classes are 0 to 6"):
        run(path, out=tmp_path / "root", labels=label_source(lambda grid, path: labels))
    assert labels.closed
    assert not index_files(tmp_path / "root")


def index_files(root: Path) -> list[str]:
    return [name for name in tree(root) if name.endswith(".png")]


def test_a_resampled_mosaic_is_what_the_model_would_see(tmp_path: Path) -> None:
    path = write_mosaic(tmp_path / "o.tif", random_image(130, 200))
    grids = []

    def labels_of(grid: Grid, path: Path) -> ArrayLabels:
        grids.append(grid)
        return ArrayLabels(random_label(grid.height, grid.width))

    run(path, out=tmp_path / "root", labels=label_source(labels_of), gsd_m=0.1, min_valid=0)
    (grid,) = grids
    assert (grid.height, grid.width) == (65, 100)
    assert grid.transform == UTM_SOUTH @ Affine.scale(2)
    found_CHW, found_HW, _ = stitch(tmp_path / "root", "o", 65, 100, 32)
    mean_CHW = random_image(130, 200).reshape(3, 65, 2, 100, 2).mean(axis=(2, 4))
    assert np.abs(found_CHW - mean_CHW).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(found_HW, random_label(65, 100))
    table = gpd.read_file(tmp_path / "root" / "patches.gpkg")
    assert table.area.to_numpy() == pytest.approx((32 * 0.1) ** 2)


def test_photos_keep_the_field_layout(tmp_path: Path) -> None:
    for folder in ("salak-1-1", "salak-1-2"):
        for number in (462, 463):
            write_photo(tmp_path / folder / f"DJI_{number:04d}.png", random_image(64, 96, number))
    root = tmp_path / "root"
    run(tmp_path / "salak-1-1", tmp_path / "salak-1-2", out=root)
    index = index_patches(root)
    assert count_by_folder(index.patches) == {"salak-1-1": (0, 12), "salak-1-2": (0, 12)}
    assert {patch.photo for patch in index.patches} == {"DJI_0462", "DJI_0463"}
    image_HWC = read_image(root / "salak-1-2" / "images" / "DJI_0463_patch_001_002.png")
    np.testing.assert_array_equal(image_HWC.transpose(2, 0, 1), random_image(64, 96, 463)[:, 32:, 64:])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_mosaic(tmp_path / "site.tif", random_image(HEIGHT, WIDTH))


LABELS = label_source(random_label(HEIGHT, WIDTH))


def test_a_second_run_changes_nothing(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "root"
    run(site, out=root, labels=LABELS)
    before = times(root)
    for more in ({}, {"resume": True}):
        again = run(site, out=root, labels=LABELS, **more)
        assert (again.cut, again.finished, again.changed) == ((), 1, ())
        assert again.class_px_K.sum() > 0
        assert times(root) == before


def test_two_roots_from_the_same_are_the_same(tmp_path: Path, site: Path) -> None:
    for name in ("a", "b"):
        run(site, out=tmp_path / name, labels=LABELS)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_project_can_be_moved(tmp_path: Path, site: Path) -> None:
    run(site, out=tmp_path / "root", folder="f")
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.move(site, tmp_path / "elsewhere"))
    root = Path(shutil.move(tmp_path / "root", tmp_path / "elsewhere" / "patches"))
    assert run(moved, out=root, folder="f").finished == 1


def test_new_sources_are_added(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "root"
    run(site, out=root)
    gpkg = root / "patches.gpkg"
    table = gpd.read_file(gpkg)
    table["split"] = "val"
    gpkg.unlink()
    table.to_file(gpkg, layer="patches")
    before = times(root / tmp_path.name)
    other = write_mosaic(tmp_path / "other.tif", random_image(64, 64))
    summary = run(other, out=root)
    assert [str(source.file) for source in summary.cut] == [f"{tmp_path.name}/other"]
    assert before.items() <= times(root / tmp_path.name).items()
    table = gpd.read_file(gpkg)
    assert table.groupby("source").split.unique().map(list).to_dict() == {"other": [""], "site": ["val"]}
    assert run(site, other, out=root).finished == 2


def test_labels_can_come_later_with_the_word(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "root"
    run(site, out=root)
    refused(r"made from something else \(labels was not given, is .*--overwrite", site, out=root, labels=LABELS)
    assert run(site, out=root, labels=LABELS, overwrite=True).labelled > 0
    fresh = tmp_path / "fresh"
    run(site, out=fresh, labels=LABELS)
    assert tree(root) == tree(fresh)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"patch": 64}, "patch was 32, is 64; stride was 32, is 64"),
        ({"stride": 16}, "stride was 32, is 16"),
        ({"gsd_m": 0.1}, "gsd_m was not given, is 0.1"),
        ({"min_valid": 0.75}, r"min_valid was 0\.5, is 0\.75"),
    ],
)
def test_other_settings_need_the_word_and_every_source(
    tmp_path: Path, site: Path, change: dict[str, Any], told: str
) -> None:
    root, other = tmp_path / "root", write_mosaic(tmp_path / "other.tif", random_image(64, 64))
    run(site, other, out=root)
    refused(rf"holds patches that were cut otherwise \({told}\); choose another --out", site, out=root, **change)
    refused(r"also holds patches of .*/other, .* name these sources", site, out=root, overwrite=True, **change)
    run(site, other, out=root, overwrite=True, **change)
    run(site, other, out=tmp_path / "fresh", **change)
    assert tree(root) == tree(tmp_path / "fresh")


def test_a_source_that_has_changed_needs_the_word(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "root"
    run(site, out=root)
    write_mosaic(site, random_image(HEIGHT - 40, WIDTH, 5))
    refused("holds patches of .*/site that were made from something else", site, out=root)
    run(site, out=root, overwrite=True)
    run(site, out=tmp_path / "fresh")
    assert tree(root) == tree(tmp_path / "fresh")


def test_labels_that_have_changed_need_the_word(tmp_path: Path, site: Path) -> None:
    drawn = tmp_path / "labels.gpkg"
    drawn.write_text("a")
    labels = LabelSource({"layer": None}, LABELS.open, lambda source: {"labels": [drawn]})
    run(site, out=tmp_path / "root", labels=labels)
    drawn.write_text("ab")
    refused(r"labels: files: labels: labels\.gpkg was 1 bytes.*is 2 bytes", site, out=tmp_path / "root", labels=labels)
    other = LabelSource({"layer": "x"}, LABELS.open, labels.files)
    refused("labels: files.*options: layer was not given, is x", site, out=tmp_path / "root", labels=other)


def test_what_is_labelled_and_where_all_is_may_have_one_name(tmp_path: Path, site: Path) -> None:
    drawn, reviewed = (tmp_path / role / "site.gpkg" for role in ("drawn", "reviewed"))
    for path in (drawn, reviewed):
        path.parent.mkdir()
        path.write_text("a")
    labels = LabelSource({}, LABELS.open, lambda source: {"labels": [drawn], "reviewed": [reviewed]})
    run(site, out=tmp_path / "root", labels=labels)
    drawn.write_text("ab")
    refused(r"labels: files: labels: site\.gpkg was 1 bytes", site, out=tmp_path / "root", labels=labels)


def test_patches_of_others_are_not_replaced(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "root"
    images = root / tmp_path.name / "images"
    images.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(images / "site_patch_000_000.png")
    Image.new("RGB", (4, 4)).save(images / "site2_patch_000_000.png")
    refused("holds patches of site that salakseg prepare knows nothing of", site, out=root)
    run(site, out=root, overwrite=True)
    assert read_image(images / "site_patch_000_000.png").shape == (32, 32, 3)
    assert read_image(images / "site2_patch_000_000.png").shape == (4, 4, 3)


def test_what_was_corrected_by_hand_is_left_and_told(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "root"
    run(site, out=root, labels=LABELS)
    masks = root / tmp_path.name / "masks"
    Image.new("L", (32, 32)).save(masks / "site_patch_000_001.png")
    (masks / "site_patch_000_002.png").unlink()
    before = times(root)
    summary = run(site, out=root, labels=LABELS)
    assert [path.name for path in summary.changed] == ["site_patch_000_001.png", "site_patch_000_002.png"]
    assert times(root) == before


def test_a_source_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "root"
    (tmp_path / "text.jpg").write_text("no picture")
    whole = write_photo(tmp_path / "cut.jpg", random_image(64, 64)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    summary = run(tmp_path / "cut.jpg", tmp_path / "text.jpg", site, out=root)
    assert [reason.split(" is ")[0].rsplit("/", 1)[1] for reason in summary.failed] == ["text.jpg", "cut.jpg"]
    assert len(summary.cut) == 1 and summary.indexed
    write_photo(tmp_path / "cut.jpg", random_image(64, 64))
    (tmp_path / "text.jpg").unlink()
    assert run(tmp_path / "cut.jpg", site, out=root, resume=True).finished == 1
    run(tmp_path / "cut.jpg", site, out=tmp_path / "fresh")
    assert tree(root) == tree(tmp_path / "fresh")


def test_the_classes_go_along(tmp_path: Path, site: Path) -> None:
    mapping = tmp_path / "my classes.csv"
    mapping.write_text("class_id,class_name,class_color\n0,row,0 0 0\n1,Ägua,#ff0000\n")
    label_HW = random_label(HEIGHT, WIDTH) % 2
    run(site, out=tmp_path / "root", labels=label_source(label_HW), class_mapping=mapping)
    assert (tmp_path / "root" / "class_mapping.csv").read_bytes() == mapping.read_bytes()
    table = gpd.read_file(tmp_path / "root" / "patches.gpkg")
    assert {"row (class)", "Ägua"} <= set(table.columns)
    kept = table[table.valid == 1]
    np.testing.assert_allclose(kept["row (class)"] + kept["Ägua"], 1)
    assert run(site, out=tmp_path / "root", labels=label_source(label_HW)).finished == 1  # found in the root
    mapping.write_text("class_id,class_name,class_color\n0,other,0 0 0\n1,Ägua,#ff0000\n")
    refused("cut otherwise .classes was", site, out=tmp_path / "root", labels=LABELS, class_mapping=mapping)


def test_the_built_in_classes_are_written_down(tmp_path: Path, site: Path) -> None:
    run(site, out=tmp_path / "root", labels=LABELS)
    assert ClassMap.from_csv(tmp_path / "root" / "class_mapping.csv").to_records() == SALAK.to_records()
    run(site, out=tmp_path / "unlabelled")
    assert not (tmp_path / "unlabelled" / "class_mapping.csv").exists()


def test_roots_that_cannot_be_used(tmp_path: Path, site: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused("file is a file; name a folder", site, out=tmp_path / "file")
    refused("file/root.* cannot be written", site, out=tmp_path / "file" / "root")
    root = tmp_path / "root"
    run(site, out=root)
    (root / "images").mkdir()
    refused("has a folder images of its own, .* choose another --out", site, out=root)
    (root / "images").rmdir()
    images = root / tmp_path.name / "images"
    refused("lies among the patches of", images, out=root, folder="again")
    manifest = json.loads((root / "prepare.json").read_text())
    for damaged, match in (
        ("{", r"prepare\.json cannot be read"),
        ("[]", "is no file of salakseg prepare"),
        (json.dumps({}), "is no file of salakseg prepare"),
        (json.dumps(manifest | {"format": 2}), "has layout 2, this salakseg knows 1"),
    ):
        (root / "prepare.json").write_text(damaged)
        refused(match, site, out=root)


def test_a_record_that_is_gone(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "root"
    run(site, out=root)
    (record,) = (root / ".prepare").rglob("*.jsonl")
    record.unlink()
    refused(r"site\.jsonl is gone or damaged, .* cut it anew with --overwrite", site, out=root)
    run(site, out=root, overwrite=True)
    assert run(site, out=root).finished == 1


def test_the_index_is_made_again_where_it_is_missing(tmp_path: Path, site: Path) -> None:
    root = tmp_path / "root"
    run(site, out=root)
    before = tree(root)
    manifest = json.loads((root / "prepare.json").read_text())
    (root / "prepare.json").write_text(json.dumps(manifest | {"indexed": False}))
    (root / "patches.gpkg").write_bytes(b"damaged")
    run(site, out=root)
    assert tree(root) == before


def test_a_small_photo_and_a_huge_patch(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "p.png", random_image(3, 5))
    summary = run(photo, out=tmp_path / "root", patch=32)
    assert summary.patches == 0 and "gives no patch: none is valid to 50 %" in summary.notes[0]
    run(photo, out=tmp_path / "other", patch=32, min_valid=0.01)
    (image,) = (tmp_path / "other" / tmp_path.name / "images").iterdir()
    expected = np.zeros((32, 32, 3), np.uint8)
    expected[:3, :5] = random_image(3, 5).transpose(1, 2, 0)
    np.testing.assert_array_equal(read_image(image), expected)


def test_an_estimate_of_everything_is_exact_and_writes_nothing(tmp_path: Path) -> None:
    path, _, _ = transparent(tmp_path)
    request = Request(sources=[path], root=tmp_path / "root", patch=32, labels=LABELS)
    found = estimate(request)
    assert not (tmp_path / "root").exists()
    summary = prepare(request)
    assert found.exact and found.positions == 35
    assert (found.patches, found.labelled, found.bytes) == (summary.patches, summary.labelled, summary.cut[0].bytes)
    again = estimate(request)
    assert (again.positions, len(again.plan.finished)) == (0, 1)


def test_an_estimate_from_a_sample_is_near(tmp_path: Path) -> None:
    paths = [write_mosaic(tmp_path / f"{n}.tif", random_image(160, 240, n)) for n in range(3)]
    labels = label_source(lambda grid, path: ArrayLabels(random_label(160, 240)) if path.stem == "1" else None)
    request = Request(sources=paths, root=tmp_path / "root", patch=16, labels=labels)
    found, summary = estimate(request), prepare(request)
    assert not found.exact and (found.positions, found.sampled) == (450, 200)
    assert found.patches == pytest.approx(summary.patches, rel=0.1)
    assert found.labelled == pytest.approx(summary.labelled, rel=0.25)
    assert found.bytes == pytest.approx(sum(source.bytes for source in summary.cut), rel=0.15)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the real imagery is not here")
@pytest.mark.parametrize("name", ["orthomosaics/smallholding_3857.tif", "geotiff-kinds/3420B_2010_328_RGB_LATLNG.tif"])
def test_real_mosaics_come_back_whole(tmp_path: Path, name: str) -> None:
    path = SHARED_DATA / name
    run(path, out=tmp_path / "root", patch=256, min_valid=0)
    with Orthomosaic(path) as orthomosaic:
        image_CHW, valid_HW = orthomosaic.read(0, 0, orthomosaic.height, orthomosaic.width)
    found_CHW, _, seen_HW = stitch(tmp_path / "root", path.stem, valid_HW.shape[0], valid_HW.shape[1], 256)
    assert not valid_HW[~seen_HW].any()
    np.testing.assert_array_equal(found_CHW, np.where(valid_HW, image_CHW, 0))
    with rasterio.open(path) as dataset:
        bounds = gpd.read_file(tmp_path / "root" / "patches.gpkg").to_crs(dataset.crs).total_bounds
        assert bounds[0] == pytest.approx(dataset.bounds.left) and bounds[3] == pytest.approx(dataset.bounds.top)
