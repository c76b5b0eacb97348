"""The check of a patch folder: a clean one passes, the layout is judged, samples say so, the real set is known."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from faults import SECOND, SECOND_MASK, check, only
from helpers import SHARED_DATA
from patch_sets import FIRST, FIRST_MASK, read, write
from PIL import Image

from salakseg.check.finding import TITLES, Finding, Severity, by_severity, counted, listed
from salakseg.check.run import Question, check_patches
from salakseg.classes import SALAK, ClassMap
from salakseg.data.patches import index_patches
from salakseg.data.splits import Role
from salakseg.errors import DataError


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
