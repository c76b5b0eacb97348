"""Faults between parts and folders, planted into a clean one: copies, shared ground, missing classes, other light."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from faults import SECOND, SECOND_MASK, check, first_image, only, role_of, set_role
from mosaics import SIDE_PX, write_gpkg, write_mosaic
from patch_sets import FIRST, FIRST_MASK, read, write
from PIL import Image

from salakseg.check.finding import Severity
from salakseg.check.run import Question, check_patches
from salakseg.classes import SALAK
from salakseg.data.patches import Photo, index_patches
from salakseg.data.splits import Role, Split, read_split, write_split
from salakseg.prepare.parts.shared_ground import shared_ground
from salakseg.prepare.parts.splitting import SplitRequest, make_parts

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
    metres = Affine.translation(431_000, 9_154_000) @ Affine.scale(0.05, -0.05)
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
