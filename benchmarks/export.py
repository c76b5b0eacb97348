"""How fast exported files are, how small, and how long an export takes.

    python benchmarks/export.py                              # three encoders, fp32, fp16 and int8 against torch
    python benchmarks/export.py --checkpoint best.pt --size 256    # and what int8 costs a trained network
    python benchmarks/export.py --encoders mobilenet_v2 --repeats 3 --size 128    # a smoke run

DeepLabV3+ with random weights, 7 classes, three heads, one tile of 512 x 512 a call. Contestants alternate within each
repeat, each on all cores; medians of `--repeats` (15) and ratios to torch are printed, `--out FILE.json` keeps every
single measurement. "torch" is the engine that salakseg itself runs checkpoints with; "torch, heads merged" computes the
exported module with its one merged head, so that the runtime's share of the gain shows; both take the same uint8 tile.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from predict_inputs import random_network, texture

from salakseg.export.compare import compare_precisions
from salakseg.export.graph import Deployed
from salakseg.export.onnx import export_onnx
from salakseg.export.parity import file_input
from salakseg.export.precision import to_int8
from salakseg.export.settings import ExportSettings, Precision
from salakseg.export.source import Source, open_source
from salakseg.network.onnx_engine import OnnxEngine
from salakseg.network.processor import int8_weight_bits
from salakseg.network.torch_engine import TorchEngine
from salakseg.network.variant import Variant

BARS = {"resnet50": 1.15, "resnet18": 1.5, "mobilenet_v2": 1.5}
"""How many times as fast as torch fp32 must be."""

SIZE_BAR = 0.52
EXPORT_BAR = 60.0

Measured = dict[str, Any]


def main() -> None:
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    records: list[Measured] = []
    for encoder in arguments.encoders:
        with tempfile.TemporaryDirectory() as folder:
            records.append(measure(encoder, arguments, Path(folder)))
    if arguments.checkpoint is not None:
        records.append(trained(arguments.checkpoint, arguments.size))
    if arguments.out:
        names = ("salakseg", "onnxruntime-gpu", "torch", "onnx", "numpy")
        setting = {
            "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()},
            "versions": {name: version(name) for name in names},
            "arguments": {name: str(value) for name, value in vars(arguments).items()},
        }
        arguments.out.write_text(json.dumps({**setting, "measurements": records}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=list(BARS))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--checkpoint", type=Path, help="a trained network, for what int8 loses")
    parser.add_argument("--work", type=Path, default=Path("scratch/bench"))
    parser.add_argument("--out", type=Path, help="a JSON file")
    return parser.parse_args()


def measure(encoder: str, arguments: argparse.Namespace, folder: Path) -> Measured:
    checkpoint = random_network(arguments.work, encoder)
    settings = ExportSettings(variant=Variant(), size=arguments.size)
    start = time.perf_counter()
    plain = export_onnx(checkpoint, folder / "fp32.onnx", settings)
    seconds = time.perf_counter() - start
    source = open_source(checkpoint, settings, None)
    files = {"fp32": plain.path} | {p: precision(source, p, folder) for p in ("fp16", "int8")}
    tile = texture(0, arguments.size, arguments.size)[None]
    times = alternate(contestants(checkpoint, source, files), tile, arguments.repeats)
    sizes = {name: path.stat().st_size / 1e6 for name, path in files.items()}
    share = sizes["fp16"] / sizes["fp32"]
    print(f"\n{encoder}: export {seconds:.1f} s (bar {EXPORT_BAR:g}), fp16 {share:.3f} of fp32's size (bar {SIZE_BAR})")
    print(f"fp32 must be {BARS.get(encoder, 1):g} times as fast as torch")
    base = statistics.median(times["torch"])
    for name, taken in times.items():
        median = statistics.median(taken)
        size = f"{sizes[name]:8.1f} MB" if name in sizes else ""
        print(f"{name:22}{1000 * median:8.1f} ms{base / median:8.2f} times as fast{size}")
    return {"encoder": encoder, "export_s": seconds, "nodes": plain.nodes, "size_mb": sizes, "seconds": times}


def precision(source: Source, wanted: Precision, folder: Path) -> Path:
    """A file that no gate is asked about: random weights decide nothing."""
    path = folder / f"{wanted}.onnx"
    if wanted == "int8":
        size = source.sides[0]
        tiles = [texture(seed, size, size)[None] for seed in range(4)]
        images = [file_input(tile, source.settings, *source.channels) for tile in tiles]
        model = to_int8(source.graph(), images, int8_weight_bits())
        onnx.helper.set_model_props(model, source.metadata(wanted))
        onnx.save(model, path)
    else:
        source.write(source.graph(), wanted, path)
    return path


def contestants(checkpoint: Path, source: Source, files: dict[str, Path]) -> dict[str, Callable[[Any], object]]:
    merged = Deployed(source.network, source.settings, *source.channels).eval().to(memory_format=torch.channels_last)

    def run_merged(tile: np.ndarray[Any, np.dtype[np.uint8]]) -> object:
        with torch.inference_mode():
            image = torch.from_numpy(file_input(tile, source.settings, *source.channels))
            return merged(image.to(memory_format=torch.channels_last)).numpy()

    by_torch = TorchEngine(checkpoint, "cpu", source.sides[0])
    engines = {name: OnnxEngine(path).predict for name, path in files.items()}
    return {"torch": by_torch.predict, "torch, heads merged": run_merged, **engines}


def alternate(
    runs: dict[str, Callable[[Any], object]], tile: np.ndarray[Any, np.dtype[np.uint8]], repeats: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(tile)
            if repeat:
                times[name].append(time.perf_counter() - start)
            time.sleep(0.02)  # both runtimes' threads spin for a while after their work
    return times


def trained(checkpoint: Path, size: int) -> Measured:
    """What the precisions of a trained network cost on its validation part."""
    comparison = compare_precisions(checkpoint, ExportSettings(variant=Variant(), size=size))
    rows = []
    for row in comparison.rows:
        loss = row.parity.loss
        lost = None if loss is None else {"miou": loss.points, "worst": loss.worst}
        rows.append({"precision": row.precision, "agreement": row.parity.agreement, "lost_points": lost})
        print(
            f"{row.precision:6}{row.milliseconds:8.1f} ms, agrees on {100 * row.parity.agreement:.3f} %, loses {lost}"
        )
    print(comparison.advice)
    return {"trained": str(checkpoint), "rows": rows}


if __name__ == "__main__":
    main()
