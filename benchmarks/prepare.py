"""What cutting a mosaic into patches costs beside reading it and encoding the PNGs alone, and how its memory grows.

    python benchmarks/prepare.py --out benchmarks/prepare_cpu.json     # 20,000 x 20,000, and memory (Linux)
    python benchmarks/prepare.py --side 2048 --repeats 1               # a smoke run

The mosaic is RGB, tiled, deflated, made of the synthetic plantation; its labels are rectangles drawn at random, as a
GeoPackage, that cover about three quarters of it. Contestants alternate within each repeat, each writes into a folder
of its own; medians of `--repeats` (3) and ratios are printed, `--out FILE.json` keeps every single measurement. Nothing
is deleted before the last has run: ext4 without a journal gives no inode away again for minutes, and looks for another
one at length, so that thousands of deleted files add up to a millisecond to every file that is made after them.

read and encode    reads the mosaic strip by strip in one thread and encodes every picture and mask in as many threads
                   as there are cores, by the encoders of `salakseg prepare`; labels are in memory, no file is written
and write          the same, and each PNG is written under its name, so that the share of the disk can be told
pillow             read and encode with Pillow's encoder at its default level, for pictures
prepare            what `salakseg prepare` does: the same, and the labels burned from their polygons, checksums, files,
                   record, index; all of it on the disk at the end

Memory is the peak of a process of its own for a quarter of the side and for the side.
"""

import argparse
import io
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from peers import peak_memory_mb
from PIL import Image
from rasterio.windows import Window

from salakseg.classes import SALAK
from salakseg.data.scene import make_scene
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.raster import gdal_settings
from salakseg.prepare.cut import Cutter, Patch, _read_ahead
from salakseg.prepare.finding import SourceFile
from salakseg.prepare.grid import Grid, Labels
from salakseg.prepare.labelling.labels import LabelOptions, open_labels
from salakseg.prepare.request import LabelSource, Request
from salakseg.prepare.run import prepare
from salakseg.prepare.sources import open_source
from salakseg.prepare.windows import Windows

SIDE = 20_000
PATCH = 256
SCENE = 1024
TRANSFORM = Affine(0.05, 0, 431000, 0, -0.05, 9154000)


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        records = times(folder, arguments)
        if arguments.memory:
            records += memory(folder, arguments.side)
    if arguments.out:
        arguments.out.write_text(json.dumps({"setting": setting(arguments), "measurements": records}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=SIDE)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where mosaic and patches go for the time being, 10 GB")
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def setting(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "side": arguments.side,
        "patch": PATCH,
        "repeats": arguments.repeats,
        "cores": os.cpu_count(),
        "machine": platform.platform(),
    }


def write_inputs(folder: Path, side: int) -> tuple[Path, Path]:
    """Mosaic and polygons. The scene is turned and mirrored from place to place, and every place is a little darker or
    lighter than others; drawing a scene for each would take an hour."""
    mosaic, polygons = folder / f"mosaic_{side}.tif", folder / f"labels_{side}.gpkg"
    if mosaic.exists():
        return mosaic, polygons
    generator = np.random.default_rng(0)
    scene_HWC = make_scene(1, SCENE, SCENE).image_HWC
    with rasterio.open(
        mosaic, "w", driver="GTiff", count=3, height=side, width=side, dtype="uint8", crs="EPSG:32749",
        transform=TRANSFORM, tiled=True, blockxsize=512, blockysize=512, compress="deflate", predictor=2, zlevel=1,
        photometric="RGB", num_threads="all_cpus",
    ) as dataset:  # fmt: skip
        for row in range(0, side, SCENE):
            for col in range(0, side, SCENE):
                turned = np.rot90(scene_HWC, int(generator.integers(4)))[:, :: int(generator.choice([1, -1]))]
                shifted = turned.astype(np.int16) + generator.integers(-20, 20)
                part = shifted.clip(0, 255).astype(np.uint8)[: side - row, : side - col].transpose(2, 0, 1)
                dataset.write(part, window=Window(col, row, part.shape[2], part.shape[1]))
    count = max(20, side * side // 40_000)  # of 30 x 30 to 300 x 300 pixels
    corner_N2, size_N2 = generator.uniform(0, side, (count, 2)), generator.uniform(30, 300, (count, 2))
    low_N2, high_N2 = corner_N2 * 0.05, (corner_N2 + size_N2) * 0.05
    boxes = shapely.box(431000 + low_N2[:, 0], 9154000 - high_N2[:, 1], 431000 + high_N2[:, 0], 9154000 - low_N2[:, 1])
    names = np.array(SALAK.names)[generator.integers(0, len(SALAK), count)]
    gpd.GeoDataFrame({"class_name": names}, geometry=boxes, crs="EPSG:32749").to_file(polygons)
    return mosaic, polygons


def label_source(polygons: Path) -> LabelSource:
    def open_one(grid: Grid, source: Path) -> Labels | None:
        return open_labels(polygons, grid, source, SALAK, LabelOptions())

    return LabelSource({}, open_one, lambda source: {"labels": [polygons]})


def run_prepare(folder: Path, side: int, out: Path) -> None:
    mosaic, polygons = write_inputs(folder, side)
    prepare(Request(sources=[mosaic], root=out, labels=label_source(polygons), patch=PATCH))


class InMemory:
    """Labels that were read before; every strip is like another."""

    def __init__(self, label_HW: NDArray[np.uint8]) -> None:
        self._label_HW = label_HW

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.uint8]:
        return self._label_HW[:height, :width]

    def close(self) -> None:
        pass


def read_and_encode(mosaic: Path, side: int, label_HW: NDArray[np.uint8], encode: Callable[[Patch], object]) -> None:
    with gdal_settings():
        source = open_source(mosaic, SourceOptions())
        windows = Windows(side, side, PATCH, PATCH)
        file = SourceFile(mosaic, "x", "x")
        cutter = Cutter(Path(), file, source, InMemory(label_HW), SALAK, windows, 0.0)
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            waiting: list[Any] = []
            for pixels in _read_ahead(cutter, list(windows.strips()), reader):
                waiting.append(
                    pool.map(lambda col, pixels=pixels: encode(cutter.patch(pixels, col)), range(windows.cols))
                )
                if len(waiting) > 2:
                    list(waiting.pop(0))
            for results in waiting:
                list(results)
        source.close()


def written(patch: Patch, out: Path) -> None:
    for kind, content in zip(("images", "masks"), patch.encode(SALAK), strict=True):
        if content is not None:
            (out / kind / f"{patch.row}_{patch.col}.png").write_bytes(content)


def read_encode_write(mosaic: Path, side: int, label_HW: NDArray[np.uint8], out: Path) -> None:
    for kind in ("images", "masks"):
        (out / kind).mkdir(parents=True)
    read_and_encode(mosaic, side, label_HW, lambda patch: written(patch, out))
    os.sync()


def with_pillow(patch: Patch) -> None:
    Image.fromarray(np.ascontiguousarray(patch.image_CHW.transpose(1, 2, 0))).save(io.BytesIO(), "PNG")


def times(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    mosaic, polygons = write_inputs(folder, arguments.side)
    source = open_source(mosaic, SourceOptions())
    labels = label_source(polygons).open(source.grid, mosaic)
    assert labels is not None
    label_HW = labels.read(0, 0, PATCH, arguments.side + PATCH)
    source.close()
    contestants: dict[str, Callable[[Path], None]] = {
        "read and encode": lambda out: read_and_encode(mosaic, arguments.side, label_HW, lambda p: p.encode(SALAK)),
        "and write": lambda out: read_encode_write(mosaic, arguments.side, label_HW, out),
        "pillow": lambda out: read_and_encode(mosaic, arguments.side, label_HW, with_pillow),
        "prepare": lambda out: run_prepare(folder, arguments.side, out),
    }
    records: list[dict[str, Any]] = []
    for repeat in range(arguments.repeats):
        for name, run in contestants.items():
            out = folder / f"out_{repeat}_{name.replace(' ', '_')}"
            os.sync()  # what the one before has written must not be paid by the next
            start, cpu_start = time.perf_counter(), time.process_time()
            run(out)
            took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}
            records.append({"contestant": name, "repeat": repeat, **took})
            print(f"{repeat} {name:<16} {took['seconds']:7.2f} s, CPU {took['cpu_seconds']:7.2f} s", flush=True)
    median, cpu = (
        {
            name: statistics.median(record[unit] for record in records if record["contestant"] == name)
            for name in contestants
        }
        for unit in ("seconds", "cpu_seconds")
    )
    print(f"{(arguments.side / PATCH) ** 2 / median['prepare']:.0f} patches a second")
    print(f"prepare / read and encode, speed   {median['read and encode'] / median['prepare']:.3f}   the bar is 0.80")
    print(f"the same by CPU seconds            {cpu['read and encode'] / cpu['prepare']:.3f}")
    print(f"prepare / the same and write       {median['and write'] / median['prepare']:.3f}")
    print(f"prepare / the same by Pillow       {median['pillow'] / median['prepare']:.3f}")
    return records


def memory(folder: Path, side: int) -> list[dict[str, Any]]:
    records = []
    for smaller in (side // 4, side):
        write_inputs(folder, smaller)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            peak = pool.submit(peak_of, folder, smaller).result()
        records.append({"contestant": "memory", "side": smaller, "peak_mb": peak})
        print(f"side {smaller}: peak {peak:.0f} MB   the bar is 1,000", flush=True)
    return records


def peak_of(folder: Path, side: int) -> float:
    """Peak memory of this process over a run, MB."""
    out = folder / "peak"
    run_prepare(folder, side, out)
    shutil.rmtree(out)
    return peak_memory_mb()


if __name__ == "__main__":
    main()
