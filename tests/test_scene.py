from functools import cache

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from salakseg.classes import IGNORE_INDEX, SALAK
from salakseg.data.scene import Scene, make_scene

SEEDS = (0, 1, 2, 3)

# Bounds of each class's share of the flown area, in the order of SALAK.
SHARES = ((0.22, 0.38), (0.003, 0.02), (0.05, 0.14), (0.03, 0.065), (0.045, 0.13), (0.28, 0.42), (0.08, 0.14))


@cache
def scene_of(seed: int) -> Scene:
    return make_scene(seed, 768, 768)


def test_same_seed_gives_same_scene_whatever_the_global_state() -> None:
    np.random.seed(1)
    first = make_scene(5, 300, 420)
    np.random.seed(2)
    second = make_scene(5, 300, 420)
    np.testing.assert_array_equal(first.image_HWC, second.image_HWC)
    np.testing.assert_array_equal(first.valid_HW, second.valid_HW)
    np.testing.assert_array_equal(first.label_HW, second.label_HW)
    assert first.image_HWC.shape == (300, 420, 3)


def test_other_seed_gives_other_scene() -> None:
    first, second = scene_of(0), scene_of(1)
    both = first.valid_HW & second.valid_HW
    assert np.mean(first.label_HW[both] == second.label_HW[both]) < 0.5
    assert not np.array_equal(first.valid_HW, second.valid_HW)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_class_has_its_share(seed: int) -> None:
    scene = scene_of(seed)
    counts = np.bincount(scene.label_HW[scene.valid_HW], minlength=len(SALAK))
    assert len(counts) == len(SALAK)
    for name, share, (low, high) in zip(SALAK.names, counts / counts.sum(), SHARES, strict=True):
        assert low <= share <= high, f"{name}: {share:.3f}"


@pytest.mark.parametrize("seed", SEEDS)
def test_ignored_exactly_where_nobody_flew(seed: int) -> None:
    scene = scene_of(seed)
    assert scene.image_HWC.dtype == scene.label_HW.dtype == np.uint8
    assert scene.valid_HW.dtype == np.bool_
    np.testing.assert_array_equal(scene.label_HW == IGNORE_INDEX, ~scene.valid_HW)
    assert 0.7 < scene.valid_HW.mean() < 0.97
    assert len(np.unique(scene.image_HWC[~scene.valid_HW])) == 1
    # A straight outline would leave all rows that were flown equally long.
    assert len(np.unique(scene.valid_HW.sum(axis=1))) > 20


def test_colour_of_a_pixel_hardly_tells_its_class() -> None:
    # Measured from 0.18 to 0.39 over pairs of seeds, 0.3 at most on this one; a network reaches 0.7.
    rng = np.random.default_rng(0)
    pixels = []
    for scene in (scene_of(1), scene_of(2)):
        chosen = rng.choice(np.flatnonzero(scene.valid_HW), 20_000, replace=False)
        pixels.append((scene.image_HWC.reshape(-1, 3)[chosen], scene.label_HW.ravel()[chosen]))
    (known, known_label), (unseen, label) = pixels
    classifier = HistGradientBoostingClassifier(max_iter=40, random_state=0).fit(known, known_label)
    guess = classifier.predict(unseen)
    ids = range(len(SALAK))
    overlaps = [np.sum((guess == i) & (label == i)) / np.sum((guess == i) | (label == i)) for i in ids]
    assert np.mean(overlaps) < 0.40
