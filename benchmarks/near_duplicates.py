"""How many changed copies the search for near-duplicates finds, and how many neighbours it takes for copies.

    python benchmarks/near_duplicates.py                         # on the synthetic plantation
    python benchmarks/near_duplicates.py mosaic.tif photos/      # on pictures of your own

Patches of 256 x 256 are cut at steps of 64 pixels, so that neighbours overlap by three quarters and are not the same.
"""

import argparse
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from salakseg.check.record import GRID
from salakseg.check.similar import has_texture, near_pairs
from salakseg.data.patches import IMAGE_SUFFIXES
from salakseg.data.scene import make_scene

PATCH = 256
STEP = 64
TRIED = 200  # patches that are copied

Rgb = NDArray[np.uint8]
generator = np.random.default_rng(0)


def jpeg(rgb_HWC: Rgb, quality: int) -> Rgb:
    buffer = BytesIO()
    Image.fromarray(rgb_HWC).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def affine(rgb_HWC: Rgb, factor: float, pivot: float) -> Rgb:
    return ((rgb_HWC.astype(np.float64) - pivot) * factor + pivot).clip(0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[Rgb], Rgb]] = {
    "JPEG, quality 90": lambda rgb: jpeg(rgb, 90),
    "JPEG, quality 50": lambda rgb: jpeg(rgb, 50),
    "10 % darker": lambda rgb: affine(rgb, 0.9, 0),
    "15 % more contrast": lambda rgb: affine(rgb, 1.15, 128),
    "noise of 5 levels": lambda rgb: (rgb + generator.normal(0, 5, rgb.shape)).clip(0, 255).astype(np.uint8),
    "half the size": lambda rgb: np.asarray(Image.fromarray(rgb).resize((PATCH // 2, PATCH // 2))),
    "shifted by 2 pixels": lambda rgb: np.roll(rgb, 2, axis=1),
    "shifted by 4 pixels": lambda rgb: np.roll(rgb, 4, axis=1),
    "mirrored": lambda rgb: np.ascontiguousarray(rgb[:, ::-1]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="*")
    for name, rgb_HWC in pictures(parser.parse_args().pictures):
        tell(name, rgb_HWC)


def pictures(paths: list[Path]) -> Iterator[tuple[str, list[Rgb]]]:
    if not paths:
        yield "synthetic plantation", patches_of(make_scene(1, 2048, 2048).image_HWC)
    for path in paths:
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        yield path.name, [patch for file in files for patch in patches_of(np.asarray(Image.open(file).convert("RGB")))]


def patches_of(rgb_HWC: Rgb) -> list[Rgb]:
    height, width = rgb_HWC.shape[:2]
    found = [
        np.ascontiguousarray(rgb_HWC[row : row + PATCH, col : col + PATCH])
        for row in range(0, height - PATCH + 1, STEP)
        for col in range(0, width - PATCH + 1, STEP)
    ]
    return [patch for patch in found if np.ptp(patch) > 0]


def grid_of(rgb_HWC: Rgb) -> Rgb:
    return np.asarray(Image.fromarray(rgb_HWC).convert("L").resize((GRID, GRID), Image.Resampling.BOX))


def tell(name: str, patches: list[Rgb]) -> None:
    grid = np.stack([grid_of(patch) for patch in patches])
    texture = has_texture(grid)
    false_pairs = len(near_pairs(grid, np.arange(len(grid))).first)
    print(f"{name}: {len(grid):,} patches, {100 * texture.mean():.0f} % compared, {false_pairs} pairs that are none")
    tried = generator.permutation(np.flatnonzero(texture))[:TRIED]
    for change, apply in CHANGES.items():
        copies = np.stack([grid_of(apply(patches[place])) for place in tried])
        pairs = near_pairs(np.concatenate([grid[tried], copies]), np.arange(2 * len(tried)))
        found = (pairs.second - pairs.first == len(tried)).sum()
        print(f"  {change:<20} {100 * found / len(tried):5.1f} % found")


if __name__ == "__main__":
    main()
