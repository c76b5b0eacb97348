"""How long mapping takes and how much memory it holds, against the bare network and against other programs.

    python benchmarks/predict.py                    # predict_map against bare ONNX Runtime on the same 143 tiles
    python benchmarks/predict.py --bare-batch 4     # and the bare forward passes in batches of four as well
    python benchmarks/predict.py --peers            # and geoai and MONAI, each run in a process of its own
    python benchmarks/predict.py --peers --peer-forms plain optimised    # and both with the module fused by torch
    python benchmarks/predict.py --no-bare --overlaps      # only the default overlap against half a tile
    python benchmarks/predict.py --no-bare --memory        # only 60,000 x 60,000 against 6,000 x 6,000, ResNet-50
    python benchmarks/predict.py --device cuda --batch-size 8      # with torch on a GPU, autocast as the engine does it
    python benchmarks/predict.py --height 900 --width 1100 --repeats 1    # a smoke run

Contestants alternate within each repeat; medians of `--repeats` (3) and ratios are printed, `--out FILE.json` keeps
every single measurement. The raster is synthetic (4096 x 5120 RGB, uint8, 0.05 m, deflate), the network DeepLabV3+
ResNet-18 with random weights, 7 classes and three heads, the tile 512, the overlap 128. Rasters, models and maps lie in
`--work` (scratch/bench); rasters and models are made once.

The bare passes get their tiles read, cut and normalised. On a GPU the tiles lie on the device, the pass stops at the
logits, and the share of the bare speed is one over the ratio. Memory is the peak of a process of its own.

`--peers` needs an environment without salakseg and makes it in `--peers-env` (scratch/peers) unless it is there:
`python -m venv`, then `pip install geoai-py==0.40.1 monai==1.6.1` and this environment's version of torch. The peers
shift the last row and column of tiles back into the raster, salakseg lets them stick out: maps of random weights differ
there, and agree to the last pixel where tiles do not overlap.
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import rasterio
from numpy.typing import NDArray
from peers import in_process, map_with_salakseg, peers_python
from predict_inputs import (
    OVERLAP,
    TILE,
    cut_tiles,
    onnx_file,
    orthomosaic,
    prepared,
    random_network,
    sparse_orthomosaic,
    torchscript,
)

from salakseg.network.engine import Engine
from salakseg.network.onnx_engine import OnnxEngine

WARM_SIDE = 900
"""Side of the raster that is mapped first, untimed; nine tiles."""

Measured = dict[str, Any]
Contestants = dict[str, Callable[[], Measured]]


def main() -> None:
    arguments = parse()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    source = orthomosaic(work, arguments.height, arguments.width)
    warm = orthomosaic(work, WARM_SIDE, WARM_SIDE)
    checkpoint = prepared(random_network, work, "resnet18")
    model = prepared(onnx_file, checkpoint)
    engine = open_engine(arguments.device, checkpoint, model)
    megapixels = arguments.height * arguments.width / 1e6
    records: list[Measured] = []

    def ours(overlap: int | None) -> Callable[[], Measured]:
        return lambda: salakseg(engine, source, work / "map.tif", overlap, arguments.batch_size)

    inside: Contestants = {}
    if not arguments.no_bare:
        inside = bare(arguments, cut_tiles(source), checkpoint, model) | {"predict_map": ours(OVERLAP)}
    outside = programs(arguments, source, warm, checkpoint, model) if arguments.peers else {}
    salakseg(engine, warm, work / "map.tif", OVERLAP, arguments.batch_size)
    found = alternate("mapping", inside | outside, arguments.repeats)
    records += found
    table(f"{arguments.height} x {arguments.width}, {engine.runs_on}; the bar is 1.10", found, inside, megapixels)
    table("whole programs, each in a process of its own", found, outside, megapixels)
    records += agreement(list(outside), work)
    if arguments.overlaps:
        both = {"half a tile": ours(TILE // 2), "default": ours(None)}
        records += (found := alternate("overlaps", both, arguments.repeats))
        table("overlap; the bar is 0.50", found, both, megapixels)
    if arguments.memory:
        both = memory(arguments)
        records += (found := alternate("memory", both, arguments.memory_repeats))
        table("memory, ResNet-50; the bars are 1.15 and 2000 MB", found, both, key="peak_mb")
    if arguments.out:
        arguments.out.write_text(json.dumps({**setting(arguments), "measurements": records}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=4096)
    parser.add_argument("--width", type=int, default=5120)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, help="of predict_map and the bare passes; default: 1")
    parser.add_argument("--bare-batch", type=int, help="bare passes in such batches as well")
    parser.add_argument("--no-bare", action="store_true", help="leave out predict_map against the bare passes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--peers-env", type=Path, default=Path("scratch/peers"))
    parser.add_argument("--peer-forms", nargs="+", choices=("plain", "optimised"), default=["plain"])
    parser.add_argument("--overlaps", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--memory-repeats", type=int, default=1)
    parser.add_argument("--sides", type=int, nargs=2, default=(6_000, 60_000), help="of --memory: small and large")
    parser.add_argument("--patches", type=int, default=12, help="of --memory: areas that hold data")
    parser.add_argument("--patch-side", type=int, default=1_500, help="of --memory: pixels")
    parser.add_argument("--work", type=Path, default=Path("scratch/bench"))
    parser.add_argument("--out", type=Path, help="a JSON file")
    return parser.parse_args()


# Contestants


def open_engine(device: str, checkpoint: Path, model: Path) -> Engine:
    if device == "cpu":
        return OnnxEngine(model)
    from salakseg.network.torch_engine import TorchEngine

    return TorchEngine(checkpoint, device, TILE)


def salakseg(engine: Engine, source: Path, out: Path, overlap: int | None, batch_size: int | None) -> Measured:
    summaries: list[Any] = []
    measured = timed(lambda: summaries.append(map_with_salakseg(source, out, engine, overlap, batch_size)))
    return measured | {"tiles": summaries[0].tiles_run, "seconds_of_summary": summaries[0].seconds}


def bare(arguments: argparse.Namespace, tiles: NDArray[np.float32], checkpoint: Path, model: Path) -> Contestants:
    """The forward passes alone, warmed up; the first is what ratios refer to."""
    batches = dict.fromkeys((arguments.batch_size or 1, arguments.bare_batch or arguments.batch_size or 1))
    if arguments.device == "cuda":
        runs = {batch: bare_torch(checkpoint, tiles, batch, arguments.device) for batch in batches}
    else:
        runs = {batch: bare_onnx(model, tiles, batch) for batch in batches}
    return {f"bare network, batch {n}": partial(timed, run, tiles=len(tiles)) for n, run in runs.items()}


def bare_onnx(model: Path, tiles_NCHW: NDArray[np.float32], batch: int) -> Callable[[], None]:
    options = ort.SessionOptions()  # as in OnnxEngine
    options.intra_op_num_threads = 0
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batches = [tiles_NCHW[start : start + batch] for start in range(0, len(tiles_NCHW), batch)]

    def run(count: int | None = None) -> None:
        for image_BCHW in batches[:count]:
            session.run(None, {name: image_BCHW})

    run(3)
    return run


def bare_torch(checkpoint: Path, tiles_NCHW: NDArray[np.float32], batch: int, device: str) -> Callable[[], None]:
    import torch

    from salakseg.network.checkpoint import load_checkpoint

    on_cuda = device == "cuda"
    native = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    half = torch.bfloat16 if native else torch.float16  # as in TorchEngine
    network = load_checkpoint(checkpoint).build().to(device).to(memory_format=torch.channels_last)
    batches = torch.from_numpy(tiles_NCHW).to(device).to(memory_format=torch.channels_last).split(batch)

    @torch.inference_mode()
    def run() -> None:
        with torch.autocast(device, dtype=half, enabled=on_cuda):
            for image_BCHW in batches:
                network(image_BCHW)
        if on_cuda:
            torch.cuda.synchronize()

    run()
    return run


def programs(arguments: argparse.Namespace, source: Path, warm: Path, checkpoint: Path, model: Path) -> Contestants:
    """Whole programs, each in a process of its own that maps a small raster first; salakseg is the first."""
    work, rest = arguments.work, [f"--tile={TILE}", f"--overlap={OVERLAP}", "--warm", warm]
    own = [f"--batch-size={arguments.batch_size}"] if arguments.batch_size else []
    commands = {"salakseg": [sys.executable, "salakseg", model, source, work / "salakseg.tif", *rest, *own]}
    python, module = peers_python(arguments.peers_env), prepared(torchscript, checkpoint)
    for form in arguments.peer_forms:
        for peer in ("geoai", "monai"):
            how = ["--optimise"] if form == "optimised" else []
            commands[f"{peer} {form}"] = [python, peer, module, source, work / f"{peer} {form}.tif", *rest, *how]
    return {name: partial(in_process, command) for name, command in commands.items()}


def memory(arguments: argparse.Namespace) -> Contestants:
    """salakseg on rasters of two sizes with the same number of valid pixels, each in a process of its own."""
    work = arguments.work
    model = prepared(onnx_file, prepared(random_network, work, "resnet50"))
    found: Contestants = {}
    for side in arguments.sides:
        source = sparse_orthomosaic(work, side, arguments.patches, arguments.patch_side)
        command = [sys.executable, "salakseg", model, source, work / f"memory_{side}.tif", f"--overlap={OVERLAP}"]
        found[f"{side:,} x {side:,}"] = partial(in_process, command)
    return found


# Measuring and telling


def alternate(part: str, contestants: Contestants, repeats: int) -> list[Measured]:
    records = []
    for repeat in range(repeats):
        for name, run in contestants.items():
            record = {"part": part, "contestant": name, "repeat": repeat, "load_before": os.getloadavg()[0], **run()}
            records.append(record)
            print(f"{part} {repeat + 1}/{repeats}: {name} {record['seconds']:.2f} s", file=sys.stderr, flush=True)
    return records


def timed(job: Callable[[], object], **known: object) -> Measured:
    start, cpu_start = time.perf_counter(), time.process_time()
    job()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start, **known}


def table(
    title: str, records: list[Measured], names: Iterable[str], megapixels: float = math.nan, key: str = "seconds"
) -> None:
    """Medians, and the ratio of one of them to that of the first name."""
    if not names:
        return
    print(f"\n{title}\n{'':26} median s     min     max   Mpx/s  peak MB  tiles   ratio")
    first = None
    for name in names:
        mine = [record for record in records if record["contestant"] == name]
        times, peaks = [r["seconds"] for r in mine], [r.get("peak_mb", math.nan) for r in mine]
        middle, compared = statistics.median(times), statistics.median(r[key] for r in mine)
        first = first or compared
        line = f"{name:26}{middle:9.2f}{min(times):8.2f}{max(times):8.2f}{megapixels / middle:8.2f}"
        line += f"{statistics.median(peaks):9.0f}{mine[0].get('tiles', '-'):>7}{compared / first:8.3f}"
        print(line.replace("nan", "  -"))


def agreement(names: Sequence[str], work: Path) -> list[Measured]:
    """Compares the maps of the other programs with that of the first."""
    records = []
    for name in names[1:]:
        with rasterio.open(work / f"{names[0]}.tif") as ours, rasterio.open(work / f"{name}.tif") as theirs:
            label_HW = ours.read(1)
            share = float((label_HW == theirs.read(1)).mean())
        top = float(np.bincount(label_HW.ravel()).max() / label_HW.size)
        records.append({"part": "agreement", "contestant": name, "share": share, "largest_class": top})
        print(f"{name:26}{share:9.3%} of the pixels as {names[0]}, whose largest class has {top:.0%}")
    return records


def setting(arguments: argparse.Namespace) -> Measured:
    names = ("salakseg", "onnxruntime-gpu", "torch", "rasterio", "numpy")
    return {
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in names},
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
    }


if __name__ == "__main__":
    main()
