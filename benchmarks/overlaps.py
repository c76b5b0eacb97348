"""Tile, overlap and window of the mapping: what each costs, and what it gives, on the whole validation images.

    python benchmarks/overlaps.py CHECKPOINT AERIAL [--tiles 256 512 1024] [--out overlaps.json]

CHECKPOINT is a network trained on the images that `prepare_aerial.py AERIAL OUT --reduce 1` cuts; AERIAL is the folder
"Semantic segmentation of aerial imagery". Each validation image (part 5 of every scene, 0.3 to 3.2 megapixels) is
mapped as a mosaic of its own with each setting. The table shows mIoU without class 0, the share of pixels with the same
class as at half a tile of overlap, and the tiles that were run for a megapixel.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from salakseg.classes import ClassMap
from salakseg.data.masks import read_mask
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.metrics import compute_metrics
from salakseg.export.cache import cached_onnx
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.predict import predict_map
from salakseg.mapping.settings import MapSettings
from salakseg.mapping.tiling import WINDOWS, WindowName
from salakseg.network.onnx_engine import OnnxEngine

SHARES = (0.0, 0.125, 0.1875, 0.25, 0.375, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("aerial", type=Path)
    parser.add_argument("--tiles", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--out", type=Path, default=Path("overlaps.json"))
    arguments = parser.parse_args()
    images = sorted(arguments.aerial.glob("Tile */images/image_part_005.jpg"))
    class_map = ClassMap.from_csv(arguments.aerial / "class_mapping.csv")
    rows = []
    for tile in arguments.tiles:
        engine = OnnxEngine(cached_onnx(arguments.checkpoint, tile)[0])
        half = [run(image, engine, tile // 2, "hann") for image in images]
        for window in WINDOWS if tile == 512 else WINDOWS[:1]:
            for share in SHARES if window == "hann" else (0.25,):
                rows.append(score(images, class_map, engine, round(share * tile), window, half))
                print(rows[-1], flush=True)
    arguments.out.write_text(json.dumps(rows, indent=1))
    print(table(rows))


def run(image: Path, engine: OnnxEngine, overlap: int, window: WindowName) -> tuple[NDArray[np.uint8], int, float]:
    """The labels, the tiles that were run, the seconds."""
    settings = MapSettings(overlap=overlap, window=window, gsd="off", source=SourceOptions(allow_no_crs=True))
    with tempfile.TemporaryDirectory() as folder:
        summary = predict_map(image, Path(folder) / "map.tif", engine, settings)
        with rasterio.open(Path(folder) / "map.tif") as dataset:
            return dataset.read(1), summary.tiles_run, summary.seconds


def score(
    images: list[Path],
    class_map: ClassMap,
    engine: OnnxEngine,
    overlap: int,
    window: WindowName,
    half: list[tuple[NDArray[np.uint8], int, float]],
) -> dict[str, float | str]:
    confusion = ConfusionMatrix(len(class_map))
    same = pixels = tiles = 0
    for image, (reference_HW, _, _) in zip(images, half, strict=True):
        label_HW, run_tiles, _ = run(image, engine, overlap, window)
        truth_HW = read_mask(image.parents[1] / "masks" / f"{image.stem}.png", class_map).label_HW
        confusion.update(truth_HW, label_HW)
        same += int((label_HW == reference_HW).sum())
        pixels += label_HW.size
        tiles += run_tiles
    miou = compute_metrics(confusion).miou_without_background.value
    return {
        "tile": engine.tile,
        "overlap": overlap,
        "window": window,
        "miou": round(float(miou), 4),
        "agreement": round(same / pixels, 4),
        "tile_megapixels_per_megapixel": round(tiles * engine.tile**2 / pixels, 2),
    }


def table(rows: list[dict[str, float | str]]) -> str:
    keys = list(rows[0])
    lines = [keys, ["---"] * len(keys), *([str(row[key]) for key in keys] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
