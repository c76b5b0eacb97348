"""How many patches a second `salakseg check` looks at, beside what decoding them alone takes.

    python benchmarks/check.py                                     # 4,000 patches, two processors
    python benchmarks/check.py --patches 500 --repeats 1           # a smoke run
    python benchmarks/check.py --pairs 370000                      # and the search for near-duplicates alone

Patches are 256 x 256 PNGs cut from the synthetic plantation, one in 28 with a mask, as in the field set. Contestants
alternate within each repeat; medians of `--repeats` (3) and ratios are printed, `--out FILE.json` keeps every single
measurement. The processors are those that the process may use (Linux); `taskset -c 0,1` takes two of them.

decode      every picture and mask decoded by Pillow, in as many threads as check has
check       the whole check: layout, reading, every finding; without the page
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from peers import peak_memory_mb
from PIL import Image

from salakseg.check.run import Question, check_patches
from salakseg.check.similar import near_pairs
from salakseg.classes import SALAK
from salakseg.data.scene import make_scene

PATCH = 256
STEP = 32
A_PHOTO = 20
A_MASK = 28  # patches for each labelled one
FIELD = 370_647
BAR_S = 15 * 60
THREADS = 4


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        root = write_patches(Path(folder) / "patches", arguments.patches)
        records = times(root, arguments.repeats)
    if arguments.pairs:
        records.append(pairs(arguments.pairs))
    if arguments.out:
        arguments.out.write_text(json.dumps({"setting": setting(arguments), "measurements": records}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def setting(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "patches": arguments.patches,
        "repeats": arguments.repeats,
        "pairs": arguments.pairs,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "machine": platform.platform(),
    }


def write_patches(root: Path, count: int) -> Path:
    """Patches at steps of 32 pixels: each costs what a patch costs, and scenes need not be drawn for all of them."""
    images, masks = root / "flight" / "images", root / "flight" / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    side = PATCH + STEP * (int(np.ceil(np.sqrt(count))) - 1)
    scene = make_scene(1, side, side)
    windows = [(row, col) for row in range(0, side - PATCH + 1, STEP) for col in range(0, side - PATCH + 1, STEP)]
    for number, (row, col) in enumerate(windows[:count]):
        window = slice(row, row + PATCH), slice(col, col + PATCH)
        name = f"DJI_{number // A_PHOTO:04d}_patch_{row:05d}_{col:05d}.png"
        Image.fromarray(scene.image_HWC[window]).save(images / name)
        if number % A_MASK == 0:
            Image.fromarray(scene.label_HW[window]).save(masks / name)
    return root


def times(root: Path, repeats: int) -> list[dict[str, Any]]:
    files = sorted(root.rglob("*.png"))
    patches = sum(path.parent.name == "images" for path in files)

    def load(path: Path) -> None:
        with Image.open(path) as picture:
            picture.load()

    def decode() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(load, files))

    def check() -> None:
        check_patches(Question(root, SALAK))

    contestants: dict[str, Callable[[], None]] = {"decode": decode, "check": check}
    records = []
    for repeat in range(repeats):
        for name, run in contestants.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
            records.append({"contestant": name, "repeat": repeat, "seconds": seconds, "cpu_seconds": cpu})
            print(f"{repeat} {name:<7} {seconds:6.2f} s {patches / seconds:6.0f} patches/s, {cpu / seconds:.2f} cores")
    wall, cpu = (
        {name: statistics.median(r[key] for r in records if r["contestant"] == name) for name in contestants}
        for key in ("seconds", "cpu_seconds")
    )
    minutes = FIELD / (patches / wall["check"]) / 60
    print(
        f"check / decode     {wall['check'] / wall['decode']:.2f} of time, {cpu['check'] / cpu['decode']:.2f} of work"
    )
    print(f"the field's {FIELD:,} patches: {minutes:.1f} minutes   the bar is {BAR_S / 60:.0f}")
    print(f"peak memory of this process {peak_memory_mb():.0f} MB")
    return records


def pairs(count: int) -> dict[str, Any]:
    """The search for near-duplicates over soft random pictures, one in a hundred of them a copy."""
    generator = np.random.default_rng(0)
    coarse = generator.normal(0, 1, (count, 3, 3)).astype(np.float32)
    fine = np.kron(coarse, np.ones((1, 3, 3), np.float32)) + generator.normal(0, 0.5, (count, 9, 9)).astype(np.float32)
    grid = (127 + 30 * fine).clip(0, 255).astype(np.uint8)
    copies = np.arange(0, count - 1, 100)
    grid[copies + 1] = (grid[copies] * 0.95).astype(np.uint8)
    start = time.perf_counter()
    found = near_pairs(grid, np.arange(count))
    seconds = time.perf_counter() - start
    print(f"near-duplicates among {count:,}: {seconds:.1f} s, {len(found.first):,} pairs of {len(copies):,} planted")
    return {"contestant": "pairs", "count": count, "seconds": seconds, "found": len(found.first)}


if __name__ == "__main__":
    main()
