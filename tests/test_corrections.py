"""A map that a person has corrected goes back into training: the whole walk, by its commands."""

import json
import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from helpers import TINY, command
from PIL import Image
from rasterio.features import shapes
from rasterio.transform import from_origin
from shapely.geometry import box, shape

from salakseg.classes import SALAK
from salakseg.data.patches import index_patches
from salakseg.data.scene import make_scene
from salakseg.data.splits import Role, read_roles, read_split
from salakseg.errors import DataError
from salakseg.prepare.parts.extending import extend_split

SIDE, PIXEL = 256, 0.1
UTM = "EPSG:32749"


def write_farm(folder: Path, name: str, seed: int, west: float) -> None:
    """A mosaic, and its true classes as polygons."""
    scene = make_scene(seed, SIDE, SIDE)
    place = from_origin(west, 9160000, PIXEL, PIXEL)
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": SIDE, "width": SIDE, "crs": UTM}
    with rasterio.open(folder / f"{name}.tif", "w", transform=place, **profile) as file:
        file.write(scene.image_HWC.transpose(2, 0, 1))
    found = shapes(scene.label_HW, mask=scene.label_HW != 255, transform=place)
    rows = [{"class_name": SALAK.names[int(value)], "geometry": shape(drawn)} for drawn, value in found]
    geopandas.GeoDataFrame(rows, crs=UTM).to_file(folder / f"{name}.gpkg")


@pytest.fixture
def farms(tmp_path: Path) -> Path:
    """Two farms far apart; the first one is cut into patches."""
    write_farm(tmp_path, "old", 0, 430000)
    write_farm(tmp_path, "new", 1, 432000)
    command("prepare", "old.tif", "--labels", "old.gpkg", "--out", "patches", "--patch", 32, cwd=tmp_path)
    return tmp_path


def test_a_corrected_map_back_into_training(farms: Path) -> None:
    flags = ["--recipe", "quick", "--data-root", "patches", *TINY[:10], "--batch-size", 2, "--warmup-iters", 2]
    flags += ["--num-steps", 4, "--set", "evaluation.every=4", "--device", "cpu"]
    command("train", *flags, "--checkpoint-dir", "runs/before", cwd=farms)
    made = ["--model", "runs/before", "--polygons", "map.gpkg", "--min-area", 0, "--device", "cpu"]
    command("predict", "new.tif", "--out", "map.tif", *made, cwd=farms)
    # What is done in QGIS: classes of some polygons are chosen anew, and the area that was looked at is drawn
    corrected = geopandas.read_file(farms / "map.gpkg")
    west, _, _, north = corrected.total_bounds
    area = box(west, north - 12.8, west + 12.8, north)
    corrected.loc[corrected.intersects(area), "class_name"] = "Jalan"
    corrected.to_file(farms / "corrected.gpkg")
    geopandas.GeoDataFrame({"by": ["me"]}, geometry=[area], crs=UTM).to_file(farms / "area.gpkg")
    labels = ["--labels", "corrected.gpkg", "--reviewed", "area.gpkg"]
    told = command("prepare", "new.tif", *labels, "--out", "patches", "--patch", 32, cwd=farms).output
    assert "splits extend" in " ".join(told.split())
    alone = command("prepare", "new.tif", *labels[2:], "--out", "elsewhere", cwd=farms, status=2)
    assert "needs --labels" in " ".join(alone.output.split())
    before = read_roles(farms / "patches" / "splits.csv")
    command("splits", "extend", "patches", cwd=farms)
    index = index_patches(farms / "patches")
    split = read_split(farms / "patches" / "splits.csv", index)
    assert {photo: split.roles[photo] for photo in before} == before
    new = [patch for patch in split.patches(index, Role.LABELLED) if patch.photo_key not in before]
    assert len(new) == 16  # of 64 patches those in the area
    masks = [rasterio.open(index.root / patch.folder / "masks" / str(patch.mask)).read(1) for patch in new]
    assert (np.stack(masks) == SALAK.names.index("Jalan")).all()
    command("train", *flags, "--init", "runs/before", "--checkpoint-dir", "runs/after", cwd=farms)
    command("report", "runs/after", "runs/before", "--device", "cpu", cwd=farms)
    report = json.loads((farms / "runs" / "after" / "report" / "report.json").read_text())
    assert "before" in json.dumps(report)


def test_what_lies_near_a_held_out_part_is_used_nowhere(farms: Path) -> None:
    root = farms / "patches"
    roles = read_roles(root / "splits.csv")
    val = next(photo for photo, role in roles.items() if role is Role.VAL)
    index = index_patches(root)
    held_out = [patch for patch in index.patches if patch.photo_key == val]
    # The lines of a part that was training, and of the gap around a held-out one, are lost
    lines = (root / "splits.csv").read_text().splitlines()
    kept = [line for line in lines if line.rpartition(",")[2] not in ("labelled", "gap")]
    (root / "splits.csv").write_text("\n".join(kept) + "\n")
    extended = extend_split(root)
    assert extended.joined > 0
    assert extended.unused > 0
    assert extended.ground is not None
    again = read_split(root / "splits.csv", index_patches(root))
    box_N4, roles_N = extended.ground.box_N4, [again.roles[patch.photo_key] for patch in extended.index.patches]
    of_val = next(n for n, patch in enumerate(extended.index.patches) if patch.stem == held_out[0].stem)
    for n, role in enumerate(roles_N):
        apart = np.maximum(box_N4[n, :2] - box_N4[of_val, 2:], box_N4[of_val, :2] - box_N4[n, 2:]).max()
        if role is Role.LABELLED:
            assert apart > 32 * PIXEL - 0.01


def test_photos_join_but_for_the_neighbours_of_held_out_ones(clean_set: Path, tmp_path: Path) -> None:
    root = tmp_path / "patches"
    shutil.copytree(clean_set, root)
    lines = (root / "splits.csv").read_text().splitlines()
    kept = [line for line in lines if not line.endswith((",gap", ",labelled", ",unlabelled"))]
    kept.append(next(line for line in lines if line.endswith(",labelled")))  # else the folder were held out whole
    lost = len(lines) - len(kept)
    assert lost
    (root / "splits.csv").write_text("\n".join(kept) + "\n")
    extended = extend_split(root, gap=1)
    assert extended.ground is None
    photos = [
        role for photo, role in extended.split.roles.items() if role in (Role.GAP, Role.LABELLED, Role.UNLABELLED)
    ]
    assert len(photos) == lost + 1
    assert Role.LABELLED in photos
    assert extended.unused > 0
    assert (extend_split(root).joined, extend_split(root).unused) == (0, 0)
    (root / "splits.csv").unlink()
    with pytest.raises(DataError, match="make a split with"):
        extend_split(root)


def test_a_folder_that_is_held_out_whole_stays_so(clean_set: Path, tmp_path: Path) -> None:
    root = shutil.copytree(clean_set, tmp_path / "patches")
    index = index_patches(root)
    held_out = index.patches[0].folder
    rows = [(*photo, "val" if photo.folder == held_out else "labelled") for photo in index.photos()]
    (root / "splits.csv").write_text("folder,photo,role\n" + "".join(",".join(row) + "\n" for row in rows))
    for kind in ("images", "masks"):
        known = next((root / held_out / kind).glob("*.png"))
        shutil.copy(known, known.with_name("DJI_9000_patch_000_000.png"))
    extended = extend_split(root, gap=1)
    assert (extended.joined, extended.unused) == (0, 1)


def test_new_ground_beside_photos_of_no_known_place_is_told(clean_set: Path, farms: Path) -> None:
    root = shutil.copytree(clean_set, farms / "photos")
    command("prepare", "new.tif", "--labels", "new.gpkg", "--out", "photos", "--patch", 32, cwd=farms)
    told = " ".join(command("splits", "extend", "photos", cwd=farms).output.split())
    joined = extend_split(root)
    assert not joined.changes
    assert "where held-out photos lie is not known, so " in told and "as --photos" in told


def test_photos_that_were_labelled_since_join_the_labelled_part(clean_set: Path, tmp_path: Path) -> None:
    root = shutil.copytree(clean_set, tmp_path / "patches")
    before = read_split(root / "splits.csv", index_patches(root))
    photo = next(photo for photo, role in before.roles.items() if role is Role.UNLABELLED)
    patches = [patch for patch in index_patches(root).patches if patch.photo_key == photo]
    for patch in patches:
        side = Image.open(index_patches(root).image_path(patch)).size
        Image.new("L", side, 1).save(root / patch.folder / "masks" / patch.image)
    told = " ".join(command("check", root).output.split())
    assert f"{len(patches)} patches with a mask are in the unlabelled part" in told
    assert extend_split(root).labelled == len(patches)
    after = read_split(root / "splits.csv", index_patches(root))
    assert {p for p in before.roles if before.roles[p] is not after.roles[p]} == {photo}
    assert after.roles[photo] is Role.LABELLED
    assert not extend_split(root).changes


def test_roles_of_photos_that_are_away_for_a_while_stay(clean_set: Path, farms: Path) -> None:
    by_place = farms / "patches"
    for root in (shutil.copytree(clean_set, farms / "flight"), by_place):
        before = read_roles(root / "splits.csv")
        for role in (Role.LABELLED, Role.VAL):
            lines = (root / "splits.csv").read_bytes()
            index = index_patches(root)
            moved = [patch for patch in index.patches if before.get(patch.photo_key) is role]
            (farms / "away").mkdir()
            for number, patch in enumerate(moved):
                index.image_path(patch).rename(farms / "away" / str(number))
            other = root / "other" / "images" / f"DJI_0001_patch_000_00{len(role)}.png"
            other.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (9, 99, 9)).save(other)
            if role is Role.VAL:
                with pytest.raises(DataError, match=r"held-out photos of .* are not there"):
                    extend_split(root)
                assert (root / "splits.csv").read_bytes() == lines
                other.unlink()
            else:
                extended = extend_split(root)
                assert extended.joined + extended.placeless == 1
            for number, patch in enumerate(moved):
                (farms / "away" / str(number)).rename(index.image_path(patch))
            (farms / "away").rmdir()
        assert not extend_split(root).changes
        after = read_split(root / "splits.csv", index_patches(root)).roles
        assert {photo: after[photo] for photo in before} == before


def test_a_patch_whose_place_is_not_known_is_used_nowhere_in_a_split_by_place(farms: Path) -> None:
    root = farms / "patches"
    roles = read_roles(root / "splits.csv")
    lines = (root / "splits.csv").read_text().splitlines()
    (root / "splits.csv").write_text("\n".join(x for x in lines if not x.endswith((",labelled", ",gap"))) + "\n")
    (root / "hand" / "images").mkdir(parents=True)
    Image.new("RGB", (32, 32), (9, 99, 9)).save(root / "hand" / "images" / "photo_1_patch_000_000.png")
    told = " ".join(command("splits", "extend", root).output.split())
    assert "1 patches are used nowhere, since where they lie is not known" in told
    again = read_split(root / "splits.csv", index_patches(root))
    assert {role for photo, role in again.roles.items() if photo.folder == "hand"} == {Role.GAP}
    old = {photo: role for photo, role in again.roles.items() if photo in roles and roles[photo] is not Role.GAP}
    assert old == {photo: role for photo, role in roles.items() if photo in old}
    (root / "patches.gpkg").unlink()
    (root / "splits.csv").write_text("\n".join(x for x in lines if not x.endswith(",labelled")) + "\n")
    with pytest.raises(
        DataError, match=r"divided by place, and where its held-out patches lie is not known; .*--photos"
    ):
        extend_split(root)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "expected the columns"), ("folder,photo,role\n", "holds nothing out")]
)
def test_a_split_that_holds_nothing_is_not_extended(clean_set: Path, tmp_path: Path, text: str, reason: str) -> None:
    root = shutil.copytree(clean_set, tmp_path / "patches")
    (root / "splits.csv").write_text(text)
    with pytest.raises(DataError, match=reason):
        extend_split(root)
    assert (root / "splits.csv").read_text() == text
