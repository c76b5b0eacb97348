"""Copies are found by digest and by perceptual hash, and only they."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from salakseg.check.record import GRID
from salakseg.check.similar import MOST_BITS, difference_hash, has_texture, near_pairs, same_groups
from salakseg.data.scene import make_scene


def grid_of(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image_HWC).convert("L").resize((GRID, GRID), Image.Resampling.BOX))


def bits_apart(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> int:
    return int(np.bitwise_count(one ^ other).sum())


@given(arrays(np.uint64, (12, 2), elements=st.integers(0, 2)))
def test_groups_are_what_comparing_all_with_all_gives(digest_N2: NDArray[np.uint64]) -> None:
    expected: dict[bytes, list[int]] = {}
    for place, digest in enumerate(digest_N2):
        expected.setdefault(digest.tobytes(), []).append(place)
    found = [group.tolist() for group in same_groups(digest_N2)]
    assert found == sorted(group for group in expected.values() if len(group) > 1)


def test_no_pictures_have_no_copies() -> None:
    assert same_groups(np.zeros((0, 2), np.uint64)) == []
    assert len(near_pairs(np.zeros((0, 9, 9), np.uint8), np.zeros(0, np.int64)).first) == 0


@given(arrays(np.uint8, (GRID, GRID)))
def test_the_hash_is_that_of_its_definition(grid_HW: NDArray[np.uint8]) -> None:
    bits = [grid_HW[r, c + 1] > grid_HW[r, c] for r in range(8) for c in range(8)]
    bits += [grid_HW[r + 1, c] > grid_HW[r, c] for r in range(8) for c in range(8)]
    expected = np.packbits(np.array(bits)).view(np.uint64)
    np.testing.assert_array_equal(difference_hash(grid_HW[None])[0], expected)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_no_pair_is_missed_and_none_is_invented(seed: int, changes: int) -> None:
    """Against the comparison of all with all."""
    generator = np.random.default_rng(seed)
    originals = generator.integers(0, 256, (20, GRID, GRID))
    copies = originals[:10] + generator.integers(-changes, changes + 1, (10, GRID, GRID))
    grid = np.concatenate([originals, copies]).clip(0, 255).astype(np.uint8)
    places = np.flatnonzero(generator.random(len(grid)) < 0.9)
    pairs = near_pairs(grid, places)
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    hashes = difference_hash(grid)
    expected = {
        (int(a), int(b))
        for a in places
        for b in places
        if a < b
        and bits_apart(hashes[a], hashes[b]) <= MOST_BITS
        and np.corrcoef(grid[a].ravel(), grid[b].ravel())[0, 1] >= 0.97
    }
    assert found == expected and len(found) == len(pairs.first)


def test_copies_of_real_texture_are_found_and_neighbours_are_not() -> None:
    scene = make_scene(3, 768, 768)
    patches = [
        scene.image_HWC[row : row + 128, col : col + 128] for row in range(64, 640, 64) for col in range(64, 640, 64)
    ]  # overlapping by half, and yet not the same
    changed = [
        (patches[7] * 0.9).astype(np.uint8),
        np.asarray(Image.fromarray(patches[30]).resize((100, 100)).resize((128, 128))),
        (patches[44].astype(int) + 12).clip(0, 255).astype(np.uint8),
    ]
    grid = np.stack([grid_of(np.ascontiguousarray(patch)) for patch in (*patches, *changed)])
    assert has_texture(grid).mean() > 0.5
    pairs = near_pairs(grid, np.arange(len(grid)))
    count = len(patches)
    wanted = {(7, count), (30, count + 1), (44, count + 2)}
    assert all(has_texture(grid[[place]])[0] for place, _ in wanted)
    assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == wanted


def test_flat_ground_is_not_compared() -> None:
    noise = np.random.default_rng(0).integers(100, 102, (2, GRID, GRID)).astype(np.uint8)
    noise[1] = noise[0]
    assert not has_texture(noise).any()
    assert len(near_pairs(noise, np.arange(2)).first) == 0


@pytest.mark.parametrize("most", [1, 1000])
def test_a_search_that_ends_early_says_so(most: int) -> None:
    grid = np.repeat(np.random.default_rng(0).integers(0, 256, (1, GRID, GRID)), 30, axis=0).astype(np.uint8)
    pairs = near_pairs(grid, np.arange(30), most)
    assert len(pairs.first) >= most or not pairs.is_all
    assert not pairs.is_all
