"""A clean patch folder cut from the synthetic plantation, for tests that plant one fault at a time."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from salakseg.classes import SALAK
from salakseg.data.patches import index_patches
from salakseg.data.scene import make_scene
from salakseg.data.splits import SplitPlan, make_split, write_split
from salakseg.data.survey import survey_masks

SIDE = 64
FIRST = "salak-1-1/images/DJI_0464_patch_002_003.png"
FIRST_MASK = FIRST.replace("images", "masks")


def write_clean_set(root: Path, split: bool = True) -> Path:
    """Two folders of one flight, 24 photos each: the first labelled throughout, of the second one photo in three."""
    scene = make_scene(5, 12 * SIDE, 24 * SIDE)
    for folder, left in (("salak-1-1", 0), ("salak-1-2", 12)):
        images, masks = root / folder / "images", root / folder / "masks"
        images.mkdir(parents=True)
        masks.mkdir()
        for number in range(144):
            row, col = divmod(number, 12)
            window = slice(row * SIDE, (row + 1) * SIDE), slice((left + col) * SIDE, (left + col + 1) * SIDE)
            photo = number // 6
            name = f"DJI_{460 + photo:04d}_patch_{row:03d}_{col:03d}.png"
            if np.ptp(scene.image_HWC[window]) == 0:
                continue  # not flown
            Image.fromarray(scene.image_HWC[window]).save(images / name)
            if folder == "salak-1-1" or photo % 3 == 0:
                Image.fromarray(scene.label_HW[window]).save(masks / name)
    if split:
        index = index_patches(root)
        survey = survey_masks(index, [patch for patch in index.patches if patch.mask is not None], SALAK)
        write_split(make_split(index, survey, SALAK, SplitPlan()), root / "splits.csv")
    return root


def read(path: Path) -> NDArray[np.uint8]:
    """The pixels of a file."""
    with Image.open(path) as picture:
        return np.array(picture)


def write(path: Path, values: NDArray[np.generic]) -> Path:
    """Writes pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path
