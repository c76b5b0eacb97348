from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from salakseg.classes import SALAK
from salakseg.data.patches import Patch, PatchIndex, Photo, index_patches
from salakseg.data.splits import HELD_OUT, Role, Split, SplitPlan, flight_places, make_split, read_split, write_split
from salakseg.data.survey import Survey, survey_masks
from salakseg.errors import DataError

LABELLED_ROLES = (Role.LABELLED, Role.VAL, Role.TEST, Role.GAP)


def make_index(photos: dict[Photo, bool], patches_each: int = 2) -> PatchIndex:
    patches = [
        Patch(photo.folder, f"{photo.name}_patch_000_{col:03d}.png", "mask.png" if labelled else None, photo.name)
        for photo, labelled in photos.items()
        for col in range(patches_each)
    ]
    return PatchIndex(Path("root"), tuple(patches))


def make_survey(photos: dict[Photo, bool], seed: int = 0) -> Survey:
    generator = np.random.default_rng(seed)
    return Survey({photo: generator.integers(1, 1000, 7) for photo, labelled in photos.items() if labelled})


def flight(folder: str, numbers: range, labelled: float, seed: int) -> dict[Photo, bool]:
    generator = np.random.default_rng(seed)
    return {Photo(folder, f"DJI_{n:04d}"): bool(generator.random() < labelled) for n in numbers}


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(12, 60), min_size=1, max_size=3),
    labelled=st.floats(0.3, 1.0),
    gap=st.integers(0, 4),
    seed=st.integers(0, 10_000),
    calibration=st.sampled_from([0.0, 0.05, 0.2]),
)
def test_no_photo_in_use_is_a_neighbour_of_a_held_out_one(
    lengths: list[int], labelled: float, gap: int, seed: int, calibration: float
) -> None:
    photos: dict[Photo, bool] = {}
    for number, length in enumerate(lengths):
        photos |= flight(f"salak-{number}", range(100, 100 + length), labelled, seed + number)
    index, survey = make_index(photos), make_survey(photos, seed)
    try:
        split = make_split(index, survey, SALAK, SplitPlan(gap=gap, seed=seed, calibration_share=calibration))
    except DataError as error:
        assert "too few" in str(error) or "no labelled patch" in str(error)
        return
    assert set(split.roles) == set(photos)
    for photo, role in split.roles.items():
        if role in HELD_OUT:
            for other, other_role in split.roles.items():
                near = other.folder == photo.folder and abs(int(other.name[4:]) - int(photo.name[4:])) <= gap
                assert not near or other_role in (role, Role.GAP), f"{other} {other_role} beside {photo} {role}"
    for role in (Role.LABELLED, Role.VAL, Role.TEST):
        assert split.patches(index, role)
    used = [set(split.patches(index, role)) for role in Role if role is not Role.GAP]
    assert sum(map(len, used)) == len(set().union(*used))


def test_patches_of_a_photo_stay_together_and_unlabelled_ones_of_held_out_photos_are_not_used() -> None:
    photos = flight("a", range(40), 1.0, 0)
    index = make_index(photos)
    half = PatchIndex(
        index.root,
        tuple(Patch(p.folder, p.image, p.mask if "_000.png" in p.image else None, p.photo) for p in index.patches),
    )
    split = make_split(half, make_survey(photos), SALAK, SplitPlan())
    unlabelled_photos = {p.photo_key for p in split.patches(half, Role.UNLABELLED)}
    assert unlabelled_photos == {photo for photo, role in split.roles.items() if role is Role.LABELLED}


def test_names_without_a_common_pattern_are_ordered_by_name() -> None:
    """Names with a time stamp differ in more than the last number; neighbours are neighbours all the same."""
    photos = {Photo("a", f"DJI_2024010112{n:02d}00_{n:04d}_V"): True for n in range(40)}
    split = make_split(make_index(photos), make_survey(photos), SALAK, SplitPlan(gap=3))
    roles = [split.roles[photo] for photo in sorted(photos)]
    for place, role in enumerate(roles):
        if role in HELD_OUT:
            assert all(other in (role, Role.GAP) for other in roles[max(0, place - 3) : place + 4])


@pytest.mark.parametrize(
    "names",
    [
        [f"DJI_{10 * n:04d}" for n in range(60)],
        [f"20240115_1{n // 60}{n % 60:02d}45" for n in range(60)],
        [f"DJI_{2 * n + 1:04d}_V" for n in range(60)],
    ],
    ids=["by tens", "by the clock", "every second"],
)
def test_a_gap_counts_photos_and_not_numbers(names: list[str]) -> None:
    photos = [Photo("a", name) for name in names]
    assert list(flight_places(photos).values()) == list(range(60))
    split = make_split(
        make_index(dict.fromkeys(photos, True)), make_survey(dict.fromkeys(photos, True)), SALAK, SplitPlan(gap=3)
    )
    roles = [split.roles[photo] for photo in photos]
    for place, role in enumerate(roles):
        if role in HELD_OUT:
            assert all(other in (role, Role.GAP) for other in roles[max(0, place - 3) : place + 4])


def test_numbers_tell_of_photos_that_are_missing_and_pictures_of_one_shot_share_its_place() -> None:
    few = [Photo("a", f"DJI_{n:04d}") for n in (1, 2, 3, 9, 10, 11)]
    assert list(flight_places(few).values()) == [1, 2, 3, 9, 10, 11]
    bands = [Photo("a", f"DJI_{n:04d}_{band}") for n in (1, 2, 3) for band in "TVW"]
    assert list(flight_places(bands).values()) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("by", ["block", "folder"])
def test_a_calibration_part_changes_neither_validation_nor_test(by: str) -> None:
    photos: dict[Photo, bool] = {}
    for folder in "abcd":
        photos |= flight(folder, range(40), 0.9, ord(folder))
    index, survey = make_index(photos), make_survey(photos)
    without = make_split(index, survey, SALAK, SplitPlan(by=by))
    split = make_split(index, survey, SALAK, SplitPlan(by=by, calibration_share=0.05))
    for role in (Role.VAL, Role.TEST):
        assert split.patches(index, role) == without.patches(index, role)
    drawn = [photo for photo, role in split.roles.items() if role is Role.CALIBRATION]
    assert 0.02 * len(survey.pixels) <= len(drawn) <= 0.1 * len(survey.pixels)
    for photo in drawn:
        assert without.roles[photo] is Role.LABELLED
        number = int(photo.name[4:])
        near = [other for other in photos if other.folder == photo.folder and abs(int(other.name[4:]) - number) <= 3]
        assert all(split.roles[other] in (Role.CALIBRATION, Role.GAP) for other in near)
    # Elsewhere training keeps what it had
    lost = [p for p, role in without.roles.items() if role is Role.LABELLED and split.roles[p] is Role.GAP]
    assert len(lost) <= 0.25 * len(without.patches(index, Role.LABELLED)) / 2


def test_no_calibration_part_where_training_would_lose_a_class_or_too_much() -> None:
    few = flight("a", range(22), 1.0, 0)
    split = make_split(make_index(few), make_survey(few), SALAK, SplitPlan(gap=3, calibration_share=0.05))
    assert Role.CALIBRATION not in split.roles.values()
    photos = flight("a", range(40), 1.0, 0)
    kept = 0
    for only in list(photos)[::8]:
        survey = make_survey(photos)
        for photo, pixels in survey.pixels.items():
            pixels[1] = 500 if photo == only else 0
        trained = make_split(make_index(photos), survey, SALAK, SplitPlan(gap=0)).roles[only] is Role.LABELLED
        split = make_split(make_index(photos), survey, SALAK, SplitPlan(gap=0, calibration_share=0.05))
        assert Role.CALIBRATION in split.roles.values()
        assert not trained or split.roles[only] is Role.LABELLED
        kept += trained
    assert kept > 0


def test_rare_classes_reach_every_part() -> None:
    photos = flight("a", range(80), 1.0, 0)
    survey = make_survey(photos)
    rich = {0, 1, 20, 21, 22, 40, 41, 60, 61, 79}
    for place, pixels in enumerate(survey.pixels.values()):
        pixels[1] = 500 if place in rich else 0
    split = make_split(make_index(photos), survey, SALAK, SplitPlan(seed=4))
    assert split.missing == ()
    for role in (Role.LABELLED, Role.VAL, Role.TEST):
        water = sum(int(survey.pixels[photo][1]) for photo, r in split.roles.items() if r is role)
        assert water > 0, role


def test_a_class_that_cannot_reach_every_part_is_named() -> None:
    photos = flight("a", range(40), 1.0, 0)
    survey = make_survey(photos)
    for place, pixels in enumerate(survey.pixels.values()):
        pixels[1] = 500 if place == 7 else 0
    split = make_split(make_index(photos), survey, SALAK, SplitPlan())
    assert len(split.missing) == 2
    assert {name for _, name in split.missing} == {"Badan Air"}


def test_whole_folders_are_held_out() -> None:
    photos: dict[Photo, bool] = {}
    for folder in "abcd":
        photos |= flight(folder, range(10), 0.5, ord(folder))
    photos |= {Photo("e", f"DJI_{n:04d}"): False for n in range(10)}
    index = make_index(photos)
    split = make_split(index, make_survey(photos), SALAK, SplitPlan(by="folder"))
    for folder in "abcd":
        roles = {role for photo, role in split.roles.items() if photo.folder == folder}
        assert roles <= {Role.LABELLED, Role.UNLABELLED} or (
            roles & {Role.VAL, Role.TEST} and len(roles - {Role.GAP}) == 1
        )
    assert all(split.roles[photo] is Role.UNLABELLED for photo in photos if photo.folder == "e")
    with pytest.raises(DataError, match="1 folder"):
        one = flight("a", range(40), 1.0, 0)
        make_split(make_index(one), make_survey(one), SALAK, SplitPlan(by="folder"))


def test_too_few_photos_are_told() -> None:
    photos = flight("a", range(6), 1.0, 0)
    with pytest.raises(DataError, match="6 labelled photos, too few"):
        make_split(make_index(photos), make_survey(photos), SALAK, SplitPlan(gap=3))
    split = make_split(make_index(photos), make_survey(photos), SALAK, SplitPlan(gap=1, test_share=0.0))
    assert Role.TEST not in split.roles.values()
    none = {photo: False for photo in photos}
    with pytest.raises(DataError, match="no labelled patch"):
        make_split(make_index(none), Survey({}), SALAK, SplitPlan())


def test_a_split_is_written_read_and_checked(tmp_path: Path) -> None:
    photos = flight("a", range(40), 1.0, 0)
    index = make_index(photos)
    split = make_split(index, make_survey(photos), SALAK, SplitPlan())
    path = tmp_path / "splits.csv"
    write_split(split, path)
    assert read_split(path, index).roles == split.roles
    assert Split.from_rows(split.to_rows()).roles == split.roles
    more = make_index(photos | {Photo("a", "DJI_0099"): False})
    with pytest.raises(DataError, match="no role to 1 photos, the first is a/DJI_0099"):
        read_split(path, more)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("folder,photo,role\na,DJI_0000,train\n", "'train' is no role"),
        ("folder,photo\na,DJI_0000\n", "expected the columns"),
        ("folder,photo,role\na,DJI_0000,val\na,DJI_0000,test\n", "two roles"),
        ("folder,photo,role\na,DJI_0000,val\na,DJI_0001,val\n", "no patch with a mask in the labelled part"),
    ],
)
def test_a_bad_split_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    index = make_index({Photo("a", "DJI_0000"): True, Photo("a", "DJI_0001"): True})
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_split(tmp_path / "splits.csv", index)
    assert "splits.csv" in str(error.value)


def test_the_survey_counts_what_the_masks_hold(plantation: Path) -> None:
    index = index_patches(plantation)
    labelled = [p for p in index.patches if p.mask is not None]
    seen: list[tuple[int, int]] = []
    survey = survey_masks(index, labelled, SALAK, lambda done, total: seen.append((done, total)))
    total: NDArray[np.int64] = survey.total(list(survey.pixels), 7)
    assert total.sum() == len(labelled) * 48 * 48
    assert seen[-1] == (len(labelled), len(labelled))
