"""How long indexing a patch folder of the field team's size takes, against listing the same folders.

    python benchmarks/index.py [FOLDER]

Makes 370,647 empty pictures and 12,856 empty masks in the field layout (in a temporary folder unless one is named),
then alternates a bare listing of the folders with `index_patches`, five times each, and prints medians and their ratio.
"""

import argparse
import os
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from salakseg.data.patches import index_patches

FOLDERS = {
    "salak-1-1": (5_273, 5_273),
    "salak-1-2": (59_136, 2_503),
    "salak-1-3": (40_506, 5_080),
    "salak-1-4": (89_472, 0),
    "salak-1-5": (76_800, 0),
    "salak-1-6": (99_460, 0),
}
"""Pictures and masks of each folder."""

ROWS, COLUMNS = 15, 20  # patches of a photo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        make_folders(root)
        listing, indexing = [], []
        for _ in range(5):
            listing.append(seconds(lambda: list_folders(root)))
            indexing.append(seconds(lambda: index_patches(root)))
        tracemalloc.start()
        index = index_patches(root)
        memory = tracemalloc.get_traced_memory()[0] / 1e6
        tracemalloc.stop()
    bare, ours = statistics.median(listing), statistics.median(indexing)
    print(f"{len(index.patches):,} patches, {index.labelled_count:,} labelled, {len(index.photos()):,} photos")
    print(f"listing {bare:.2f} s, index {ours:.2f} s, ratio {ours / bare:.1f}; the index holds {memory:.0f} MB")


def make_folders(root: Path) -> None:
    for folder, counts in FOLDERS.items():
        for kind, count in zip(("images", "masks"), counts, strict=True):
            (root / folder / kind).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                photo, patch = divmod(number, ROWS * COLUMNS)
                name = f"DJI_{photo + 1:04d}_patch_{patch // COLUMNS:03d}_{patch % COLUMNS:03d}.png"
                (root / folder / kind / name).touch()


def list_folders(root: Path) -> int:
    return sum(len(os.listdir(root / folder / kind)) for folder in FOLDERS for kind in ("images", "masks"))


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
