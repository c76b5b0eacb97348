"""Class weights and colours have the training's own values and numpy's as oracles."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import command
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from patch_sets import read, write

from salakseg.check.scan import scan_patches
from salakseg.check.stats import balanced_weights, stats_of
from salakseg.classes import SALAK
from salakseg.data.patches import index_patches
from salakseg.data.splits import Role, read_split
from salakseg.train import losses


def test_the_weights_of_the_field_set() -> None:
    """Shares in percent: background 29.45, water 0.22, building 13.83, road 2.87, tree 4.69, salak 40.54, soil 8.40."""
    weights = balanced_weights(np.array([2945, 22, 1383, 287, 469, 4054, 840]))
    assert weights[1] == pytest.approx(65, abs=0.5) and weights[5] == pytest.approx(0.35, abs=0.005)


@given(arrays(np.int64, 7, elements=st.integers(0, 10**12)).filter(lambda pixels: bool(pixels.any())))
def test_the_weights_are_those_of_the_training(pixels_K: NDArray[np.int64]) -> None:
    weights = balanced_weights(pixels_K)
    np.testing.assert_allclose(weights, losses.balanced_weights(torch.from_numpy(pixels_K)).numpy(), rtol=1e-6)
    counted = pixels_K > 0
    np.testing.assert_allclose((weights * pixels_K)[counted], pixels_K.sum() / 7)


def test_colours_and_pixels_are_numpys(clean_set: Path) -> None:
    index = index_patches(clean_set)
    split = read_split(clean_set / "splits.csv", index)
    stats = stats_of(scan_patches(index, SALAK), split)
    for folder in (*stats.folders, stats.everything):
        own = [patch for patch in index.patches if folder.name in ("", patch.folder)]
        pixels = np.concatenate([read(index.image_path(patch)).reshape(-1, 3) for patch in own])
        np.testing.assert_allclose(folder.mean_C, pixels.mean(axis=0))
        np.testing.assert_allclose(folder.std_C, pixels.std(axis=0))
        labels = np.concatenate([read(index.mask_path(patch)).ravel() for patch in own if patch.mask])
        np.testing.assert_array_equal(folder.pixels_K, np.bincount(labels, minlength=256)[:7])
        assert (folder.patches, folder.labelled) == (len(own), sum(patch.mask is not None for patch in own))
    assert {part.name for part in stats.parts} == {"labelled", "val", "test"}
    trained = split.patches(index, Role.LABELLED)
    assert stats.trained.labelled == len(trained)
    labels = np.concatenate([read(index.mask_path(patch)).ravel() for patch in trained])
    np.testing.assert_array_equal(stats.trained.pixels_K, np.bincount(labels, minlength=256)[:7])
    assert stats_of(scan_patches(index, SALAK), None).trained.pixels_K.sum() == stats.everything.pixels_K.sum()


def test_the_command(clean_set: Path) -> None:
    told = command("stats", clean_set).stdout
    for word in ("Snake Fruit", "weight", "salak-1-2", "class_weights", "labelled", "std red", "all"):
        assert word in told
    found = json.loads(command("stats", clean_set, "--json").stdout)
    assert set(found) == {"all", "folders", "parts", "unreadable", "unknown_pixels"}
    assert [one["name"] for one in found["folders"]] == ["salak-1-1", "salak-1-2"]
    shares = [c["share"] for c in found["all"]["classes"]]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    for c in found["all"]["classes"]:
        assert c["weight"] == pytest.approx(1 / (7 * c["share"]), rel=1e-3)
    assert len(found["all"]["mean"]) == len(found["all"]["std"]) == 3


def test_a_folder_without_masks_and_one_bad_file(tmp_path: Path) -> None:
    tmp_path = tmp_path / "plain"
    write(tmp_path / "images" / "a.png", np.full((4, 4, 3), (10, 20, 30), np.uint8))
    (tmp_path / "images" / "b.png").write_text("no picture")
    told = " ".join(command("stats", tmp_path).stdout.split())
    assert tmp_path.name in told and "10.0" in told and "1 file that cannot be used and 0 pixels" in told
    found = json.loads(command("stats", tmp_path, "--json").stdout)
    assert found["all"]["classes"][0]["share"] is None and found["all"]["mean"] == [10, 20, 30]
    assert found["unreadable"] == 1


def test_nothing_readable_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.png").write_text("no picture")
    found = json.loads(command("stats", tmp_path, "--json").stdout)
    assert found["all"]["mean"] == [None] * 3
    command("stats", tmp_path)
