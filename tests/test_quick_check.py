"""What training says of its data before it starts, without reading more than it reads anyway."""

import csv
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from helpers import TINY, command, write_plantation
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_sets import read, write

from salakseg.check.finding import Severity
from salakseg.check.parts import overlap_findings
from salakseg.check.quick import quick_findings
from salakseg.classes import SALAK
from salakseg.data import splits
from salakseg.data.patches import Patch, PatchIndex, Photo, index_patches
from salakseg.data.splits import HELD_OUT, Role, Split, SplitPlan, make_split
from salakseg.data.survey import Survey, survey_masks
from salakseg.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_plantation(tmp_path / "patches")


def dry_run(root: Path) -> str:
    done = command("train", "--data-root", root, "--checkpoint-dir", root.parent / "run", "--dry-run", *TINY)
    return " ".join(done.stderr.split())


def test_training_says_what_check_would_find(root: Path) -> None:
    write(root / "salak-1-1" / "masks" / "gone.png", np.zeros((48, 48), np.uint8))
    path = root / "salak-1-1" / "masks" / "DJI_0460_patch_000_000.png"
    strange = np.full((48, 48, 3), (1, 2, 3), np.uint8)
    strange[:24] = SALAK.colors[1]
    write(path, strange)
    told = dry_run(root)
    assert "attention: 1 mask has no picture of the same name" in told and "salak-1-1/masks/gone.png" in told
    assert "1,152 pixels in colours of no class" in told


def test_training_says_that_parts_share_ground_and_goes_on(root: Path) -> None:
    index = index_patches(root)
    with (root / "splits.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["folder", "photo", "role"])
        for number, photo in enumerate(index.photos()):
            rows.writerow([*photo, ("labelled", "val", "test", "unlabelled")[number % 4]])
    command("train", "--data-root", root, "--checkpoint-dir", root.parent / "run", "--dry-run", *TINY)
    done = command(
        "train", "--data-root", root, "--checkpoint-dir", root.parent / "run", "--dry-run", *TINY, "--set", "data.gap=2"
    )
    assert "stand within 2 numbers of a photo of another part" in " ".join(done.stderr.split())


def test_training_says_that_a_class_is_missing(root: Path) -> None:
    for path in root.glob("*/masks/*.png"):
        label_HW = read(path)
        write(path, np.where(label_HW == 4, 5, label_HW).astype(np.uint8))
    assert "No mask holds a pixel of Pohon Berinang" in dry_run(root)


def test_a_survey_of_the_training_part_judges_nothing_else(root: Path) -> None:
    index = index_patches(root)
    everything = survey_masks(index, [patch for patch in index.patches if patch.mask is not None], SALAK)
    split = make_split(index, everything, SALAK, SplitPlan(gap=0))
    survey = survey_masks(index, split.patches(index, Role.LABELLED), SALAK)
    for pixels_K in survey.pixels.values():
        pixels_K[4] = 0
    (finding,) = quick_findings(index, survey, split, SALAK, 0)
    assert (finding.kind, finding.severity, finding.examples) == (
        "class-not-in-train",
        Severity.ERROR,
        ("Pohon Berinang",),
    )


def test_reversed_colours_are_told_from_the_survey_alone(root: Path) -> None:
    path = root / "salak-1-1" / "masks" / "DJI_0460_patch_000_000.png"
    write(path, np.full((48, 48, 3), SALAK.colors[5][::-1], np.uint8))
    index = index_patches(root)
    survey = survey_masks(index, [patch for patch in index.patches if patch.mask is not None], SALAK)
    split = make_split(index, survey, SALAK, SplitPlan(gap=0))
    kinds = [finding.kind for finding in quick_findings(index, survey, split, SALAK, 0)]
    assert kinds[0] == "reversed-colour"


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=8, max_size=30, unique_by=lambda p: p[0]), st.data()
)
def test_splits_of_our_own_making_never_overlap(numbers: list[tuple[int, bool]], data: st.DataObject) -> None:
    """And once a gap photo beside a held-out one is used, they do."""
    patches = [
        Patch("f", f"D_{n:03d}_patch_0_0.png", "m.png" if labelled else None, f"D_{n:03d}") for n, labelled in numbers
    ]
    index = PatchIndex(Path("root"), tuple(patches))
    survey = Survey({p.photo_key: np.full(7, 10) for p in patches if p.mask})
    gap = data.draw(st.integers(0, 4))
    try:
        with patch.object(splits, "CANDIDATES", 60):  # the best division matters not here
            split = make_split(index, survey, SALAK, SplitPlan(gap=gap, test_share=0.1))
    except DataError:
        return  # too few photos for such a gap
    assert list(overlap_findings(split, gap)) == []
    near = [
        photo
        for photo, role in split.roles.items()
        if role is Role.GAP
        and any(
            its in HELD_OUT and abs(int(photo.name[2:]) - int(other.name[2:])) <= gap
            for other, its in split.roles.items()
        )
    ]
    for photo in near[:3]:
        worse = Split({**split.roles, photo: Role.UNLABELLED})
        (finding,) = overlap_findings(worse, gap)
        assert finding.severity is Severity.WARNING and finding.count >= 2


def test_blocks_of_a_mosaic_are_not_judged_by_their_numbers() -> None:
    roles = {Photo("a", "m_1"): Role.LABELLED, Photo("a", "m_2"): Role.VAL}
    assert list(overlap_findings(Split(roles), 3, unordered=set(roles))) == []
    assert len(list(overlap_findings(Split(roles), 3))) == 1


def test_folders_do_not_overlap_each_other() -> None:
    roles = {Photo("a", "D_001"): Role.LABELLED, Photo("b", "D_002"): Role.VAL}
    assert list(overlap_findings(Split(roles), 3)) == []
