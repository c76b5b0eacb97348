"""What to label next: each part of the score by hand, the choice on planted cases, a pass that is interrupted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_patch
from PIL import Image

from salakseg.data.blocks import write_blocks
from salakseg.data.patches import Patch, PatchIndex, Photo, index_patches
from salakseg.data.splits import Role, Split
from salakseg.errors import DataError
from salakseg.network.heads import Logits
from salakseg.network.torch_engine import TorchEngine
from salakseg.suggest.candidates import features_of, gather, high_bin, worth_of
from salakseg.suggest.cells import cell_type, summarise
from salakseg.suggest.choose import Wish, choose, distance_of, look_at, open_stores
from salakseg.suggest.diverse import pick_diverse, standardise
from salakseg.suggest.near import Neighbourhood
from salakseg.suggest.output import suggested_split
from salakseg.suggest.pixels import Doubt, doubt_of, precision_of, rarity_of
from salakseg.suggest.sources import Cell, PatchSource, Source
from salakseg.suggest.store import CellStore


def logits_of(heads: list[list[float]]) -> Logits:
    """One pixel of which each head says some probabilities."""
    heads_BNKHW = torch.tensor(heads).log().clamp(min=-80)[None, :, :, None, None]
    return Logits(heads_BNKHW, heads_BNKHW.mean(dim=1))


def value(tensor: torch.Tensor) -> float:
    return float(tensor.flatten()[0])


def test_heads_that_contradict_each_other_are_in_doubt_and_sure_ones_are_not() -> None:
    apart = doubt_of(logits_of([[1.0, 0.0], [0.0, 1.0]]))
    assert value(apart.disagreement_BHW) == pytest.approx(1, abs=1e-4)
    assert value(apart.entropy_BHW) == pytest.approx(1, abs=1e-4)
    sure = doubt_of(logits_of([[1.0, 0.0], [1.0, 0.0]]))
    assert value(sure.score_BHW) == pytest.approx(0, abs=1e-4)


def test_the_parts_of_the_score_by_hand() -> None:
    doubt = doubt_of(logits_of([[0.9, 0.1], [0.5, 0.5]]), precision_K=(0.75, 0.2))
    p = np.array([0.7, 0.3])
    entropy = -(p * np.log(p)).sum()
    mean_entropy = (-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)) + np.log(2)) / 2
    distance = np.sqrt((entropy - mean_entropy) / np.log(2))
    assert value(doubt.entropy_BHW) == pytest.approx(entropy / np.log(2), abs=1e-5)
    assert value(doubt.disagreement_BHW) == pytest.approx(distance, abs=1e-5)
    assert value(doubt.unreliability_BHW) == pytest.approx(0.25)  # class 0 is predicted
    assert value(doubt.score_BHW) == pytest.approx((entropy / np.log(2) + distance + 0.25) / 3, abs=1e-5)


def test_what_nobody_can_measure_is_left_out_of_the_mean() -> None:
    single = doubt_of(logits_of([[0.5, 0.5]]))
    assert value(single.score_BHW) == pytest.approx(1)
    assert value(single.disagreement_BHW) == 0
    assert value(single.unreliability_BHW) == 0


def test_precision_and_rarity_of_a_confusion_matrix() -> None:
    matrix_KK = np.array([[0, 0, 1], [2, 90, 8], [0, 20, 5]])
    assert precision_of(matrix_KK) == pytest.approx((0, 90 / 110, 5 / 14))
    np.testing.assert_allclose(rarity_of(matrix_KK), [0, 0, 0.5])  # background never counts
    assert precision_of(np.array([[3, 0], [1, 0]])) == pytest.approx((0.75, 0))  # class 1 was never predicted


def test_a_cell_is_the_mean_over_its_valid_pixels() -> None:
    score_BHW = torch.tensor([[[0.1, 0.9], [0.3, 0.99]]])
    prob_BKHW = torch.stack([1 - score_BHW, score_BHW], dim=1)
    doubt = Doubt(score_BHW, score_BHW / 2, score_BHW, score_BHW, score_BHW.long(), prob_BKHW)
    valid_BHW = torch.tensor([[[True, True], [False, True]]])
    (cell,) = summarise(doubt, valid_BHW, torch.ones(1, 3))
    assert cell["pixels"] == 3
    assert cell["score"] == pytest.approx(1.99 / 3)
    assert cell["disagreement"] == pytest.approx(1.99 / 6)
    np.testing.assert_allclose(cell["prob"], [1 - 1.99 / 3, 1.99 / 3], atol=1e-3)
    shares = cell["scores"] / 65535
    assert shares[3] == pytest.approx(1 / 3, abs=1e-4)  # 0.1 of 32 bins
    assert shares[28] == pytest.approx(1 / 3, abs=1e-4)
    assert shares[31] == pytest.approx(1 / 3, abs=1e-4)


def test_high_scores_are_the_highest_tenth_of_all() -> None:
    pixels_Q = np.array([50.0, 40, 4, 6])
    assert high_bin(pixels_Q) == 2
    assert high_bin(np.array([10.0, 0, 0, 90])) == 3  # the last bin is high, however full it is


def test_worth_is_relative_doubt_raised_by_rare_classes() -> None:
    parts_MP = np.array([[0.1, 0.0, 0.2], [0.3, 0.0, 0.2], [9, 9, 9]])  # the middle part was not measured
    high, rare, open_M = np.array([0.1, 0.3, 9]), np.array([0.0, 0.5, 0]), np.array([True, True, False])
    level = np.array([(0.5 + 1) / 2, (1.5 + 1) / 2])  # 0.2 in the mean each
    np.testing.assert_allclose(worth_of(parts_MP, high, rare, 0.0, open_M)[:2], (level + np.array([0.5, 1.5])) / 2)
    np.testing.assert_allclose(worth_of(parts_MP, high, rare, 2.0, open_M)[1], (level[1] + 1.5) / 2 * 2)


def test_pictures_that_are_all_alike_are_not_told_apart_by_their_noise() -> None:
    field = np.random.default_rng(0).normal(0, 0.01, (50, 8))
    strange = np.stack([np.ones(8), -np.ones(8)])
    features = np.concatenate([field, strange]).astype(np.float32)
    feature_MC, labelled_LC = standardise(features, features[:1])
    assert set(pick_diverse(np.ones(52), feature_MC, labelled_LC, 2)) == {50, 51}


def test_of_twenty_near_copies_one_is_chosen() -> None:
    generator = np.random.default_rng(0)
    roof = generator.normal(size=16) + generator.normal(0, 0.01, (20, 16))
    others = generator.normal(size=(20, 16))
    features = np.concatenate([roof, others]).astype(np.float32)
    score_M = np.concatenate([np.full(20, 0.9), np.full(20, 0.5)])
    feature_MC, nothing = standardise(features, np.zeros((0, 16), np.float32))
    chosen = pick_diverse(score_M, feature_MC, nothing, 10)
    assert chosen[0] < 20
    assert sum(place < 20 for place in chosen) == 1
    feature_MC, labelled_LC = standardise(features, features[:1])  # the roof is labelled already
    assert not [place for place in pick_diverse(score_M, feature_MC, labelled_LC, 10) if place < 20]


def test_conflicts_are_kept_and_the_list_ends_where_nothing_is_left() -> None:
    feature_MC, _ = standardise(np.eye(4, dtype=np.float32), np.zeros((0, 4), np.float32))
    pairs = np.array([0, 0, 1, 1])
    chosen = pick_diverse(
        np.array([0.4, 0.3, 0.2, 0.1]), feature_MC, np.zeros((0, 4), np.float32), 4, lambda place: pairs == pairs[place]
    )
    assert chosen == [0, 2]


class Planted(Source):
    """Cells that were made up, a picture each."""

    title, threads = "planted", 1
    side_m: float | None = None
    step_m: float | None = None
    about: dict[str, str] = {"root": "planted"}  # noqa: RUF012

    def __init__(self, photos: list[str], ground: list[tuple[float, float]] | None = None) -> None:
        self.photos = tuple(Photo("a", photo) for photo in photos)
        self.names = [f"{n}.png" for n in range(len(photos))]
        self.base_N = np.arange(len(photos))
        self.place_N2 = np.zeros((len(photos), 2), np.int64)
        self.labelled_N = np.zeros(len(photos), bool)
        self.ground_N2 = np.full((len(photos), 2), np.nan) if ground is None else np.array(ground)

    def read(self, number: int) -> list[Cell]:
        raise AssertionError("nobody looks")


def records(source: Source, folder: Path) -> CellStore:
    store = CellStore(folder, {}, classes=2, channels=2)
    cells = np.zeros(len(source.names), cell_type(2, 2))
    cells["item"], cells["pixels"] = np.arange(len(cells)), 10
    cells["scores"][:, 0] = 65535
    cells["feature"] = np.arange(len(cells))[:, None]
    store.add(cells, source.names)
    return store


def test_photos_beside_labelled_ones_are_near_and_so_are_neighbours_of_chosen_ones(tmp_path: Path) -> None:
    source = Planted([f"DJI_{n:04d}" for n in (1, 2, 3, 4, 5, 20)])
    source.labelled_N[0] = True
    with records(source, tmp_path / "cells") as store:
        found = gather([(source, store)], "photo", 1, np.zeros(2))
    around = Neighbourhood(found, [source.photos], distance=0, gap=2, unit="photo")
    assert around.labelled().tolist() == [True, True, True, False, False, False]
    assert around.of(3, np.arange(6)).tolist() == [False, True, True, True, True, False]


def test_known_ground_decides_by_metres(tmp_path: Path) -> None:
    source = Planted(["m"] * 4, [(0, 0), (10, 0), (0, 30), (40, 30)])
    source.labelled_N[0] = True
    with records(source, tmp_path / "cells") as store:
        found = gather([(source, store)], "patch", 1, np.zeros(2))
        feature_MC = features_of([(source, store)], "patch", 1, found.key_M4[[2, 0]])
    np.testing.assert_array_equal(feature_MC, [[2, 2], [0, 0]])
    around = Neighbourhood(found, [source.photos], distance=15, gap=3, unit="patch")
    assert around.labelled().tolist() == [True, True, False, False]
    assert around.of(2, np.array([1, 2, 3])).tolist() == [False, True, False]


def test_the_same_ground_reaches_as_far_as_a_candidate_is_wide() -> None:
    source = Planted(["a"] * 12 + ["b"] * 12, [(0, 0)] * 24)
    source.base_N = np.repeat([0, 1], 12)
    source.place_N2 = np.array([(row, col) for _ in range(2) for row in range(3) for col in range(4)])
    source.side_m, source.step_m = 10.0, 5.0
    assert distance_of([source], Wish(unit="patch")) == 15
    assert distance_of([source], Wish(unit="area", side=3)) == 30  # cells that share half: 20 m
    assert distance_of([source], Wish(unit="photo")) == pytest.approx((np.sqrt(12) - 1) * 5 + 10)
    assert distance_of([source], Wish(unit="photo", distance_m=3.0)) == 3


def test_two_at_once_do_not_mix_their_records(tmp_path: Path) -> None:
    with (
        records(Planted(["p"]), tmp_path / "cells"),
        pytest.raises(DataError, match=r"is used by another suggest; wait for it, or name another --cache"),
    ):
        CellStore(tmp_path / "cells", {}, 2, 2)
    CellStore(tmp_path / "cells", {}, 2, 2).__exit__()


def test_a_store_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    source = Planted([f"p{n}" for n in range(5)])
    with records(source, tmp_path / "cells") as store:
        whole = store.read().copy()
    with (tmp_path / "cells" / "items.txt").open("r+b") as file:
        file.truncate(3 * len("1\t0.png\n") + 4)  # in the middle of the fourth name
    with (tmp_path / "cells" / "cells.bin").open("ab") as file:
        file.write(b"half a record")
    with CellStore(tmp_path / "cells", {}, 2, 2) as store:
        assert store.names == ["0.png", "1.png", "2.png"]
        np.testing.assert_array_equal(store.read(), whole[:3])
    (tmp_path / "cells" / "cells.bin").write_bytes(whole[:2].tobytes())  # a power cut: the names had reached the disk
    with CellStore(tmp_path / "cells", {}, 2, 2) as store:
        assert store.names == ["0.png", "1.png"]
        store.add(whole[2:3], ["2.png"])
    with (tmp_path / "cells" / "items.txt").open("ab") as file:
        file.write(b"4\t\xff\xfe.png\n")
    with CellStore(tmp_path / "cells", {}, 2, 2) as store:
        assert store.names == ["0.png", "1.png", "2.png"]
        np.testing.assert_array_equal(store.read(), whole[:3])
    with CellStore(tmp_path / "cells", {"model": "another"}, 2, 2) as store:
        assert store.names == []
        assert len(store.read()) == 0


class Interrupted(Exception):
    pass


class Stopping(PatchSource):
    """Stops after some pictures."""

    left = 9

    def read(self, number: int) -> list[Cell]:
        self.left -= 1
        if self.left < 0:
            raise Interrupted
        return super().read(number)


def test_an_interrupted_pass_goes_on_and_gives_the_same(
    plantation: Path, untrained_checkpoint: Path, tmp_path: Path
) -> None:
    engine = TorchEngine(untrained_checkpoint, "cpu")
    index = index_patches(plantation)
    unbroken = PatchSource(index, None, engine.tile)
    wish = Wish(count=5, unit="patch", gap=0)
    pixels = 4 * 48 * 48
    with open_stores([unbroken], engine, tmp_path / "whole") as (store,):
        look_at([unbroken], [store], engine, pixels)
        expected = choose([unbroken], [store], engine, wish)
        whole = store.read().copy()
    stopping = Stopping(index, None, engine.tile)
    stopping.threads = 1
    with open_stores([stopping], engine, tmp_path / "broken") as (store,), pytest.raises(Interrupted):
        look_at([stopping], [store], engine, pixels)
    with open_stores([unbroken], engine, tmp_path / "broken") as (store,):
        assert len(store.names) == 8  # two batches
        read: list[int] = []
        look_at([unbroken], [store], engine, pixels, lambda done, total: read.append(done))
        assert read[0] == 12
        np.testing.assert_array_equal(store.read()["item"], whole["item"])
        np.testing.assert_allclose(store.read()["score"], whole["score"], atol=1e-6)
        assert choose([unbroken], [store], engine, wish).places == expected.places
    names = [unbroken.patches[place] for place in expected.found.key_M4[list(expected.places)][:, 2]]
    assert len(set(names)) == 5
    assert all(patch.mask is None for patch in names)


def test_only_suggested_photos_change_their_role() -> None:
    photos = [Photo("a", str(number)) for number in range(3)]
    split = Split({photos[0]: Role.LABELLED, photos[1]: Role.UNLABELLED, photos[2]: Role.UNLABELLED})
    roles = [Role.LABELLED, Role.UNLABELLED, Role.LABELLED]
    index = PatchIndex(Path(), (Patch("a", "1.png", None, "1"), Patch("a", "2.png", None, "2")))
    assert suggested_split(split, photos[2:], index).roles == dict(zip(photos, roles, strict=True))
    done = PatchIndex(Path(), (Patch("a", "1.png", "1.png", "1"),))  # was labelled after an earlier round
    assert set(suggested_split(split, photos[2:], done).roles.values()) == {Role.LABELLED}


def test_everything_labelled_is_told(tmp_path: Path, plantation: Path) -> None:
    index = index_patches(plantation)
    labelled = tuple(patch for patch in index.patches if patch.mask is not None)
    with pytest.raises(DataError, match="no unlabelled patch"):
        PatchSource(type(index)(index.root, labelled), None, 64)


def test_held_out_photos_are_no_candidates(plantation: Path) -> None:
    index = index_patches(plantation)
    photos = list(index.photos())
    roles = dict.fromkeys(photos, Role.UNLABELLED) | {
        photos[0]: Role.VAL,
        photos[1]: Role.GAP,
        photos[2]: Role.LABELLED,
    }
    source = PatchSource(index, Split(roles), 64)
    assert source.photos == tuple(photos[2:])
    # also those that a split of before calls unlabelled: nobody labels them a second time
    assert source.labelled_N.sum() == index.labelled_count - 2


def test_patches_of_a_split_by_gps_are_of_their_photos(tmp_path: Path) -> None:
    """Blocks of ground hold patches of several photos, and their names tell nothing of a flight."""
    (tmp_path / "images").mkdir()
    rows = []
    for photo in ("DJI_0001", "DJI_0002", "DJI_0300"):
        for col in range(2):
            stem = f"{photo}_patch_000_{col:03d}"
            Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / "images" / f"{stem}.png")
            rows.append(("", stem, "photos.ab12cd.003_007" if photo != "DJI_0300" else "photos.ab12cd.000_001"))
    write_blocks(tmp_path / "blocks.csv", rows)
    source = PatchSource(index_patches(tmp_path), None, 16)
    assert [source.photos[base].name for base in source.base_N] == [stem[:8] for _, stem, _ in rows]


def test_a_large_patch_is_one_cell(tmp_path: Path) -> None:
    """Its windows would have the places of the patches beside it."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((100, 100, 3), 90, np.uint8)).save(tmp_path / "images" / "DJI_0001_patch_000_001.png")
    (cell,) = PatchSource(index_patches(tmp_path), None, 32).read(0)
    assert (cell.row, cell.col, cell.image_CHW.shape) == (0, 0, (3, 100, 100))


def test_a_large_photo_is_looked_at_in_windows(tmp_path: Path) -> None:
    write_patch(tmp_path, "site", "DJI_0001.png", np.zeros((70, 100), np.uint8), labelled=False)
    cells = PatchSource(index_patches(tmp_path), None, 32).read(0)
    assert [(cell.row, cell.col) for cell in cells] == [(row, col) for row in range(2) for col in range(3)]
    assert {cell.image_CHW.shape for cell in cells} == {(3, 35, 33)}
