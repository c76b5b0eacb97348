"""A fault of every kind, planted into a clean patch folder, is found and named rightly; the clean folder passes."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from helpers import SHARED_DATA
from mosaics import SIDE_PX, write_gpkg, write_mosaic
from patch_sets import FIRST, FIRST_MASK, read, write
from PIL import Image

from salakseg.check.finding import TITLES, Finding, Severity, by_severity, counted, listed
from salakseg.check.result import CheckResult
from salakseg.check.run import Question, check_patches
from salakseg.classes import SALAK, ClassMap, LandClass
from salakseg.data.patches import Photo, index_patches
from salakseg.data.splits import Role, Split, read_split, write_split
from salakseg.errors import DataError
from salakseg.prepare.parts.shared_ground import shared_ground
from salakseg.prepare.parts.splitting import SplitRequest, make_parts

SECOND = "salak-1-1/images/DJI_0464_patch_002_004.png"
SECOND_MASK = SECOND.replace("images", "masks")


@pytest.fixture
def root(clean_set: Path, tmp_path: Path) -> Path:
    """A copy of the clean folder, to plant a fault in."""
    return Path(shutil.copytree(clean_set, tmp_path / "my patches"))


def check(root: Path, class_map: ClassMap = SALAK, splits: bool = True, sample: int | None = None) -> CheckResult:
    path = root / "splits.csv"
    return check_patches(Question(root, class_map, path if splits and path.is_file() else None, sample))


def only(result: CheckResult, kind: str, severity: Severity, *also: str) -> Finding:
    """The finding of the planted fault, beside which nothing else may be said."""
    others = {finding.kind for finding in result.findings} - {kind, "labelled-share", *also}
    assert not others, others
    (finding,) = (finding for finding in result.findings if finding.kind == kind)
    assert finding.severity is severity
    for sentence in (finding.message, finding.remedy):
        assert sentence.endswith(".") and sentence[0] == sentence[0].upper()
    return finding


def role_of(root: Path, role: Role, folder: str = "salak-1-1") -> list[Photo]:
    split = read_split(root / "splits.csv", index_patches(root))
    return [photo for photo, its in split.roles.items() if its is role and photo.folder == folder]


def first_image(root: Path, photo: Photo) -> Path:
    return min((root / photo.folder / "images").glob(f"{photo.name}_patch_*"))


def set_role(root: Path, photo: Photo, role: Role) -> None:
    with (root / "splits.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    for row in rows:
        if row[:2] == [photo.folder, photo.name]:
            row[2] = role.value
    with (root / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def test_a_clean_folder_passes(clean_set: Path) -> None:
    result = check(clean_set)
    assert [finding.kind for finding in result.findings] == ["labelled-share"]
    assert not result.has_errors and result.verdict == "Ready for training: 0 errors, 0 warnings, 1 note."
    index = index_patches(clean_set)
    assert (result.patches, result.looked_at, result.labelled) == (len(index.patches),) * 2 + (index.labelled_count,)
    assert sum(int(folder.pixels_K.sum()) for folder in result.folders) == sum(
        int((read(index.mask_path(patch)) < 7).sum()) for patch in index.patches if patch.mask is not None
    )
    assert {part.name for part in result.parts} == {role.value for role in Role if role is not Role.CALIBRATION}


def test_a_clean_folder_without_a_split_passes(clean_set: Path) -> None:
    result = check(clean_set, splits=False)
    assert [finding.kind for finding in result.findings] == ["labelled-share"]
    assert result.parts == () and "there is no split yet" in result.caption


# ---- layout


def test_masks_stored_as_jpeg(root: Path) -> None:
    mask = root / FIRST_MASK
    Image.open(mask).convert("L").save(mask.with_suffix(".jpg"))
    mask.unlink()
    finding = only(check(root), "jpeg-mask", Severity.ERROR)
    assert finding.examples == (FIRST_MASK.replace(".png", ".jpg"),) and finding.count == 1
    with pytest.raises(DataError, match="JPEG mask"):
        index_patches(root)


def test_two_files_for_one_patch(root: Path) -> None:
    Image.open(root / FIRST).save((root / FIRST).with_suffix(".tif"))
    finding = only(check(root), "doubled-stem", Severity.ERROR)
    assert finding.examples == (FIRST.replace(".png", ".tif"),)


def test_masks_without_a_picture(root: Path) -> None:
    (root / FIRST).unlink()
    finding = only(check(root), "orphan-mask", Severity.WARNING)
    assert (finding.count, finding.examples) == (1, (FIRST_MASK,))


def test_a_masks_folder_in_which_nothing_fits(root: Path) -> None:
    masks = root / "salak-1-2" / "masks"
    for path in list(masks.iterdir()):
        path.rename(path.with_name(f"mask_{path.name}"))
    result = check(root, splits=False)
    finding = only(result, "stray-masks", Severity.WARNING, "orphan-mask")
    assert finding.examples == ("salak-1-2/masks",)


@pytest.mark.parametrize(("name", "why"), [("more/masks", "no images folder"), ("empty/images", "no picture")])
def test_folders_that_are_passed_over(root: Path, name: str, why: str) -> None:
    (root / name).mkdir(parents=True)
    (root / "check").mkdir()  # of an earlier check
    (root / ".hidden" / "images").mkdir(parents=True)
    finding = only(check(root), "passed-over", Severity.WARNING)
    assert finding.examples == (name.split("/")[0],) and why in finding.details[0]


def test_a_plain_root_hides_its_subfolders(root: Path) -> None:
    shutil.copytree(root / "salak-1-1" / "images", root / "images")
    finding = next(f for f in check(root, splits=False).findings if f.kind == "passed-over")
    assert finding.examples == ("salak-1-1", "salak-1-2") and "of its own" in finding.details[0]


def test_pictures_that_are_not_named_by_their_photo(root: Path) -> None:
    for name in (FIRST, FIRST_MASK, SECOND, SECOND_MASK):
        path = root / name
        path.rename(path.with_name(path.name.replace("_patch_", "-")))
    finding = only(check(root, splits=False), "whole-photo", Severity.WARNING)
    assert finding.count == 2 and finding.examples[0] == FIRST.replace("_patch_", "-")


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


def test_pictures_that_exif_turns(root: Path) -> None:
    picture = Image.open(root / FIRST)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save((root / FIRST).with_suffix(".jpg"), exif=exif, quality=95)
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


# ---- copies


def test_the_same_picture_in_two_parts(root: Path) -> None:
    train, held_out = (first_image(root, role_of(root, role)[0]) for role in (Role.LABELLED, Role.VAL))
    write(held_out, read(train))
    finding = only(check(root), "leak-duplicate", Severity.ERROR, "contradiction")
    names = [path.relative_to(root).as_posix() for path in sorted((train, held_out))]
    assert finding.count == 2 and finding.examples[0] in names and finding.others[0] in names
    assert "training" in finding.details[0] and "validation" in finding.details[0]


def test_the_same_picture_in_validation_and_test(root: Path) -> None:
    one, other = (first_image(root, role_of(root, role)[0]) for role in (Role.VAL, Role.TEST))
    shutil.copy(one, other)
    only(check(root), "leak-duplicate", Severity.ERROR, "contradiction")


def test_copies_in_the_gap_are_no_leak(root: Path) -> None:
    gap, held_out = (first_image(root, role_of(root, role)[0]) for role in (Role.GAP, Role.VAL))
    shutil.copy(held_out, gap)
    only(check(root), "duplicate", Severity.NOTE, "contradiction")


def test_the_same_picture_twice_within_a_part(root: Path) -> None:
    shutil.copy(root / FIRST, root / SECOND)
    shutil.copy(root / FIRST_MASK, root / SECOND_MASK)
    finding = only(check(root), "duplicate", Severity.NOTE)
    assert (finding.count, finding.examples, finding.others) == (1, (SECOND,), (FIRST,))


def test_copies_before_there_is_a_split(root: Path) -> None:
    shutil.copy(root / FIRST, min((root / "salak-1-1" / "images").glob("DJI_0470*")))
    only(check(root, splits=False), "duplicate", Severity.WARNING, "contradiction")


def test_one_picture_with_different_labels(root: Path) -> None:
    shutil.copy(root / FIRST, root / SECOND)
    assert (read(root / FIRST_MASK) != read(root / SECOND_MASK)).any()
    finding = only(check(root), "contradiction", Severity.WARNING, "duplicate")
    assert (finding.count, finding.examples, finding.others) == (1, (FIRST_MASK,), (SECOND_MASK,))


def textured(root: Path, photo: Photo) -> Path:
    """A patch of a photo that is not mostly ground that was not flown."""
    return max((root / photo.folder / "images").glob(f"{photo.name}_patch_*"), key=lambda path: float(read(path).std()))


def nearly(path: Path) -> bytes:
    """The same picture, a little darker, saved as JPEG."""
    darker = Image.fromarray((read(path) * 0.93).astype(np.uint8))
    target = path.with_suffix(".copy.jpg")
    darker.save(target, quality=80)
    content = target.read_bytes()
    target.unlink()
    return content


def test_nearly_the_same_picture_in_two_parts(root: Path) -> None:
    train = textured(root, role_of(root, Role.LABELLED)[0])
    held_out = first_image(root, role_of(root, Role.TEST)[0])
    held_out.with_suffix(".jpg").write_bytes(nearly(train))
    held_out.unlink()
    finding = only(check(root), "leak-near-duplicate", Severity.ERROR)
    assert finding.count == 2
    assert {finding.examples[0], finding.others[0]} == {
        path.relative_to(root).as_posix() for path in (train, held_out.with_suffix(".jpg"))
    }


def test_nearly_the_same_picture_within_a_part(root: Path) -> None:
    one, other = role_of(root, Role.LABELLED)[:2]
    train, copy = textured(root, one), first_image(root, other)
    copy.with_suffix(".jpg").write_bytes(nearly(train))
    copy.unlink()
    assert only(check(root), "near-duplicate", Severity.NOTE).count == 2
    assert only(check(root, splits=False), "near-duplicate", Severity.WARNING).count == 2


# ---- parts


def test_a_split_that_cannot_be_used(root: Path) -> None:
    lines = (root / "splits.csv").read_text().splitlines()
    (root / "splits.csv").write_text("\n".join(lines[:-3]))
    finding = only(check(root), "split", Severity.ERROR)
    assert "gives no role to 3 photos" in finding.message and finding.examples == ("splits.csv",)


def test_photos_in_a_row_in_different_parts(root: Path) -> None:
    gap = role_of(root, Role.GAP)[0]
    set_role(root, gap, Role.LABELLED)
    finding = only(check(root), "overlap", Severity.WARNING)
    assert f"salak-1-1/{gap.name}" in (*finding.examples, *finding.details[0].split(";")[1].split())
    assert "within 3 numbers" in finding.message


@pytest.mark.parametrize("stride", [SIDE_PX, SIDE_PX // 2])
def test_ground_that_parts_share(tmp_path: Path, stride: int) -> None:
    metres = Affine.translation(431_000, 9_154_000) * Affine.scale(0.05, -0.05)
    rows = write_mosaic(tmp_path, "kebun", "peta", metres, 16, 16, stride=stride)
    write_gpkg(tmp_path, rows, "EPSG:32749")
    parts = make_parts(tmp_path, SALAK, SplitRequest())
    question = Question(tmp_path, SALAK, tmp_path / "splits.csv")
    assert not [finding for finding in check_patches(question).findings if finding.kind == "overlap"]
    leaking = {photo: Role.LABELLED if role is Role.GAP else role for photo, role in parts.split.roles.items()}
    write_split(Split(leaking), question.splits or tmp_path)
    found = [finding for finding in check_patches(question).findings if finding.kind == "overlap"]
    if stride == SIDE_PX:  # side by side: too near for comfort, but no ground in common
        assert found == []
        return
    assert found[0].severity is Severity.ERROR and "share ground with a photo of another part" in found[0].message
    assert found[0].count == len({photo for pair in shared_ground(parts.index, Split(leaking)) or () for photo in pair})


def take_out(root: Path, class_id: int, roles: tuple[Role, ...]) -> None:
    """A class becomes background wherever the parts show it."""
    split = read_split(root / "splits.csv", index_patches(root))
    for patch in index_patches(root).patches:
        if patch.mask is not None and split.roles[patch.photo_key] in roles:
            path = index_patches(root).mask_path(patch)
            label_HW = read(path)
            write(path, np.where(label_HW == class_id, 0, label_HW).astype(np.uint8))


def test_a_class_missing_from_training(root: Path) -> None:
    take_out(root, 3, (Role.LABELLED,))
    finding = only(check(root), "class-not-in-train", Severity.ERROR)
    assert finding.examples == ("Jalan",) and finding.count == 1


@pytest.mark.parametrize(
    ("roles", "named"), [((Role.VAL,), "validation"), ((Role.VAL, Role.TEST), "validation and test")]
)
def test_a_class_missing_from_held_out_parts(root: Path, roles: tuple[Role, ...], named: str) -> None:
    take_out(root, 3, roles)
    finding = only(check(root), "class-not-held-out", Severity.WARNING)
    assert finding.examples == ("Jalan",) and finding.details == (f"missing from {named}",)


@pytest.mark.parametrize("splits", [True, False])
def test_a_class_that_nobody_labelled(root: Path, splits: bool) -> None:
    take_out(root, 3, tuple(Role))
    finding = only(check(root, splits=splits), "class-unlabelled", Severity.WARNING)
    assert finding.examples == ("Jalan",)


def test_a_background_that_nobody_drew_is_a_note(root: Path) -> None:
    for path in root.glob("*/masks/*"):
        label_HW = read(path)
        write(path, np.where(label_HW == 0, 255, label_HW).astype(np.uint8))
    only(check(root), "class-unlabelled", Severity.NOTE, "empty-mask")


def test_a_rare_class(root: Path) -> None:
    keep = root / "salak-1-1"
    left = {Role.LABELLED: 4, Role.VAL: 4, Role.TEST: 4, Role.UNLABELLED: 4, Role.GAP: 4}
    split = read_split(root / "splits.csv", index_patches(root))
    for path in sorted(keep.parent.glob("*/masks/*")):
        label_HW = read(path)
        role = split.roles[Photo(path.parts[-3], path.name.partition("_patch_")[0])]
        places = np.argwhere(label_HW == 3)
        kept = places[: left[role]]
        left[role] -= len(kept)
        label_HW[label_HW == 3] = 0
        label_HW[tuple(kept.T)] = 3
        write(path, label_HW)
    finding = only(check(root), "rare-class", Severity.WARNING)
    assert finding.examples == ("Jalan",) and "4 pixels" in finding.details[0] and "in training" in finding.message


def test_no_labels(root: Path) -> None:
    shutil.rmtree(root / "salak-1-1" / "masks")
    shutil.rmtree(root / "salak-1-2" / "masks")
    (finding,) = check(root, splits=False).findings
    assert (finding.kind, finding.severity) == ("no-labels", Severity.ERROR)


def test_nothing_but_labels(root: Path) -> None:
    shutil.rmtree(root / "salak-1-2")
    (finding,) = check(root, splits=False).findings
    assert (finding.kind, finding.severity) == ("no-unlabelled", Severity.NOTE)


def test_a_split_that_leaves_nothing_unlabelled(root: Path) -> None:
    for photo in role_of(root, Role.UNLABELLED, "salak-1-2"):
        set_role(root, photo, Role.GAP)
    finding = only(check(root), "no-unlabelled", Severity.WARNING)
    assert "recipes with self-training refuse" in finding.message


def test_too_few_photos_for_a_split(root: Path) -> None:
    shutil.rmtree(root / "salak-1-2" / "masks")
    for path in sorted(root.glob("salak-1-1/masks/*"))[12:]:
        path.unlink()
    found = {finding.kind: finding for finding in check(root, splits=False).findings}
    assert found["no-split"].severity is Severity.WARNING and "too few for train" in found["no-split"].message


def test_few_labels(root: Path) -> None:
    for path in sorted(root.glob("*/masks/*"))[2:]:
        path.unlink()
    found = {finding.kind: finding for finding in check(root, splits=False).findings}
    assert found["labelled-share"].severity is Severity.WARNING and found["labelled-share"].count == 2


# ---- folders


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rgb: (rgb * 0.45).astype(np.uint8), "darker by"),
        (lambda rgb: np.minimum(rgb + np.array([0, 0, 110]), 255).astype(np.uint8), "bluer by"),
    ],
)
def test_a_folder_of_other_brightness_or_colour(root: Path, change: Callable[..., np.ndarray], words: str) -> None:
    for path in (root / "salak-1-2" / "images").iterdir():
        write(path, change(read(path)))
    finding = only(check(root), "folder-shift", Severity.WARNING)
    where = finding.examples.index("salak-1-2")
    assert words in finding.details[where]


def test_a_folder_in_bgr_order(root: Path) -> None:
    for path in (root / "salak-1-2" / "images").iterdir():
        write(path, np.ascontiguousarray(read(path)[..., ::-1]))
    finding = next(f for f in check(root).findings if f.kind == "reversed-pictures")
    assert finding.severity is Severity.WARNING and "salak-1-2" in finding.examples


# ---- samples and edges


def test_a_sample_is_drawn_evenly_and_says_so(root: Path) -> None:
    result = check(root, sample=20)
    assert result.looked_at == 20 and result.is_sample and "Only 20 of them" in result.caption
    assert "in a sample of 20 patches" in result.verdict
    assert {folder.colours.pictures for folder in result.folders} == {10}
    assert not {"class-not-in-train", "class-unlabelled"} & {finding.kind for finding in result.findings}


def test_a_sample_larger_than_the_folder_is_none(clean_set: Path) -> None:
    assert not check(clean_set, sample=10_000).is_sample


def test_progress_is_told_to_the_end(clean_set: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_patches(Question(clean_set, SALAK), lambda done, total: seen.append((done, total)))
    patches = len(index_patches(clean_set).patches)
    assert seen[-1] == (patches, patches) and seen == sorted(seen)


def test_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        check(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no folder 'images'"):
        check(tmp_path)
    write(tmp_path / "masks" / "a.jpg", np.zeros((8, 8), np.uint8))
    (tmp_path / "images").mkdir()
    result = check(tmp_path)  # problems, but no picture: still a result
    assert {finding.kind for finding in result.findings} == {"jpeg-mask", "no-labels"}


def test_every_title_is_a_heading() -> None:
    assert all(title[0].isupper() and not title.endswith(".") for title in TITLES.values())


def test_words() -> None:
    assert [listed(["a", "b", "c"][:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert listed(list("abcdef")) == "a, b, c, d and 2 more"
    assert (counted(1, "mask"), counted(2571, "mask"), counted(2, "is", "are")) == ("1 mask", "2,571 masks", "2 are")
    findings = [Finding("grey", severity, 1, (), "A.", "B.") for severity in reversed(Severity)]
    assert [finding.severity for finding in by_severity(findings)] == list(Severity)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the real imagery is not part of the repository")
def test_the_real_set_is_as_its_readme_says() -> None:
    root = SHARED_DATA / "aerial-labelled"
    result = check(root, ClassMap.from_csv(root / "class_mapping.csv"))
    assert not result.has_errors and (result.patches, result.labelled, len(result.folders)) == (56, 56, 8)
    found = {finding.kind: finding for finding in result.findings}
    unknown = found["unknown-colour"]
    assert "(0, 0, 0) 549,431 px" in unknown.message
    assert unknown.examples[0] == "Tile 8/masks/image_part_003.png" and unknown.details[0].startswith("545,723 pixels")
    assert "RGB" in found["mixed-masks"].message and "palette" in found["mixed-masks"].message
    assert "509 to 2149 pixels wide" in found["sizes"].message
