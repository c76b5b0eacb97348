"""Cuts the aerial-labelled images into patches in the field layout, with the protocol's split.

    python benchmarks/prepare_aerial.py SOURCE OUT [--reduce 1]

SOURCE is the folder "Semantic segmentation of aerial imagery" (Humans in the Loop, 2020, CC0 1.0) with `Tile 1` to
`Tile 8` and `class_mapping.csv`. In every tile part 1 is labelled, parts 2 to 4 are unlabelled, part 5 is validation,
parts 6 and 7 are test. Masks are cut for the labelled, validation and test parts only, so that training cannot read
the others. Images are halved unless --reduce says otherwise.
"""

import argparse
import csv
import itertools
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from salakseg.classes import ClassMap
from salakseg.data.masks import read_image, read_mask
from salakseg.data.patches import natural_key
from salakseg.data.splits import Role

ROLES = {1: Role.LABELLED, 2: Role.UNLABELLED, 3: Role.UNLABELLED, 4: Role.UNLABELLED, 5: Role.VAL}
PATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--reduce", type=int, default=2, help="divide the images' sides by this")
    arguments = parser.parse_args()
    class_map = ClassMap.from_csv(arguments.source / "class_mapping.csv")
    rows = [["folder", "photo", "role"]]
    for tile in sorted(arguments.source.glob("Tile *"), key=lambda path: natural_key(path.name)):
        for picture in sorted((tile / "images").glob("*.jpg")):
            role = ROLES.get(int(picture.stem[-3:]), Role.TEST)
            rows.append([tile.name, picture.stem, role.value])
            labelled = role is not Role.UNLABELLED
            cut_photo(picture, arguments.out / tile.name, class_map, labelled, arguments.reduce)
    shutil.copy(arguments.source / "class_mapping.csv", arguments.out)
    with (arguments.out / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def cut_photo(picture: Path, out: Path, class_map: ClassMap, labelled: bool, factor: int) -> None:
    image_HWC = shrink(read_image(picture), factor, Image.Resampling.LANCZOS)
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "masks").mkdir(exist_ok=True)
    label_HW = None
    if labelled:
        mask = read_mask(picture.parents[1] / "masks" / f"{picture.stem}.png", class_map)
        label_HW = shrink(mask.label_HW, factor, Image.Resampling.NEAREST)
    for row, rows in enumerate(even_parts(image_HWC.shape[0])):
        for col, cols in enumerate(even_parts(image_HWC.shape[1])):
            name = f"{picture.stem}_patch_{row:03d}_{col:03d}.png"
            Image.fromarray(image_HWC[rows, cols]).save(out / "images" / name)
            if label_HW is not None:
                Image.fromarray(label_HW[rows, cols]).save(out / "masks" / name)


def shrink(array: NDArray[np.uint8], factor: int, how: Image.Resampling) -> NDArray[np.uint8]:
    height, width = (side // factor for side in array.shape[:2])
    return np.asarray(Image.fromarray(array).resize((width, height), how))


def even_parts(length: int, side: int = PATCH) -> list[slice]:
    """Cuts a length into parts of about a side, so that no pixel is left out or counted twice."""
    edges = np.linspace(0, length, max(1, round(length / side)) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]


if __name__ == "__main__":
    main()
