"""One mapping run in a process of its own: by salakseg, by geoai, or by MONAI's sliding window; prints a line of JSON.

    python benchmarks/peers.py salakseg model.onnx orthomosaic.tif map.tif
    scratch/peers/bin/python benchmarks/peers.py geoai module.pt orthomosaic.tif map.tif --warm small.tif
    scratch/peers/bin/python benchmarks/peers.py monai module.pt orthomosaic.tif map.tif --optimise

`benchmarks/predict.py` starts it. The peers' environment has no salakseg, so nothing of it is imported up here. The
module is TorchScript: images [B, 3, H, W] of 0 to 1 in, probabilities [B, K, H, W] out, normalised inside; `--optimise`
lets torch fold and fuse it after loading. `seconds` is the wall time from the raster to the map, after imports, loading
and (with `--warm`) a first run over a small raster; peak memory counts all of it, in 10^6 bytes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PEERS = {"geoai-py": "0.40.1", "monai": "1.6.1"}

Job = Callable[[Path, Path], object]
"""Maps an orthomosaic: the raster, the map to write."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestant", choices=CONTESTANTS)
    parser.add_argument("model", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=128)
    parser.add_argument("--batch-size", type=int, help="default: salakseg 1, the peers 4")
    parser.add_argument("--warm", type=Path, help="a small raster that is mapped first, untimed")
    parser.add_argument("--optimise", action="store_true", help="torch.jit.optimize_for_inference; peers only")
    arguments = parser.parse_args()
    job = CONTESTANTS[arguments.contestant](arguments)
    if arguments.warm:
        job(arguments.warm, arguments.out)
    before = peak_memory_mb()
    start, cpu_start = time.perf_counter(), time.process_time()
    job(arguments.source, arguments.out)
    measured = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "peak_mb": peak_memory_mb(),
        "peak_mb_before": before,
        "versions": {name: version(name) for name in PACKAGES[arguments.contestant]},
    }
    print(json.dumps(measured), flush=True)


def salakseg(arguments: argparse.Namespace) -> Job:
    from salakseg.network.onnx_engine import OnnxEngine

    engine = OnnxEngine(arguments.model)
    return lambda source, out: map_with_salakseg(source, out, engine, arguments.overlap, arguments.batch_size)


def map_with_salakseg(source: Path, out: Path, engine: Any, overlap: int | None, batch_size: int | None) -> Any:  # noqa: ANN401
    """The summary of `predict_map`; None for its own overlap, 3/16 of the tile, or batches of one."""
    from salakseg.mapping.predict import predict_map
    from salakseg.mapping.settings import MapSettings

    return predict_map(source, out, engine, MapSettings(overlap=overlap), batch_size=batch_size or 1, overwrite=True)


def geoai(arguments: argparse.Namespace) -> Job:
    from geoai.inference import predict_geotiff

    module = load_module(arguments)

    def run(source: Path, out: Path) -> None:
        predict_geotiff(
            module,
            str(source),
            str(out),
            tile_size=arguments.tile,
            overlap=arguments.overlap,
            batch_size=arguments.batch_size or 4,
            input_bands=[1, 2, 3],
            num_classes=arguments.classes,
            output_dtype="uint8",
            output_nodata=255,
            postprocess_fn=lambda prob_KHW: prob_KHW.argmax(axis=0),
            device="cpu",
            verbose=False,
        )

    return run


def monai(arguments: argparse.Namespace) -> Job:
    import rasterio
    import torch
    from monai.inferers import SlidingWindowInferer

    module = load_module(arguments)
    share = arguments.overlap / arguments.tile
    inferer = SlidingWindowInferer(arguments.tile, arguments.batch_size or 4, overlap=share, mode="gaussian")

    @torch.inference_mode()
    def run(source: Path, out: Path) -> None:
        with rasterio.open(source) as dataset:
            image_BCHW = torch.from_numpy(dataset.read([1, 2, 3])).float().div_(255)[None]
            profile = dataset.profile | {"count": 1, "nodata": 255}
        label_HW = inferer(image_BCHW, module)[0].argmax(dim=0).to(torch.uint8).numpy()
        profile.pop("photometric", None)
        with rasterio.open(out, "w", **profile) as dataset:
            dataset.write(label_HW, 1)

    return run


def load_module(arguments: argparse.Namespace) -> Any:  # noqa: ANN401
    import torch

    warnings.simplefilter("ignore", FutureWarning)  # TorchScript will go one day
    module: Any = torch.jit.load(arguments.model).eval()
    if arguments.optimise:
        module = torch.jit.optimize_for_inference(module)
    with torch.inference_mode():
        arguments.classes = module(torch.zeros(1, 3, arguments.tile, arguments.tile)).shape[1]
    return module


def peak_memory_mb() -> float:
    """The most memory that this process has held, 10^6 bytes.

    Not `ru_maxrss`: Linux starts a new program's with what the program that started it had held.
    """
    status = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) * 1024 / 1e6


# For benchmarks/predict.py


def in_process(command: Sequence[object]) -> dict[str, Any]:
    """Runs this file with an interpreter, the first of the words, and returns what it prints."""
    python, *rest = map(str, command)
    done = subprocess.run([python, __file__, *rest], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(rest)} failed:\n{done.stderr[-3000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def peers_python(folder: Path) -> Path:
    """The interpreter of the peers' environment, which is made if it lacks them."""
    python = folder / "bin" / "python"
    check = f"from importlib.metadata import version; assert all(version(k) == v for k, v in {PEERS}.items())"
    if not python.exists() or subprocess.run([python, "-c", check], capture_output=True).returncode:
        torch = f"torch=={version('torch').split('+')[0]}"
        subprocess.run([sys.executable, "-m", "venv", "--upgrade-deps", folder], check=True)
        pins = [torch, *(f"{name}=={number}" for name, number in PEERS.items())]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *pins], check=True)
    return python


CONTESTANTS: dict[str, Callable[[argparse.Namespace], Job]] = {"salakseg": salakseg, "geoai": geoai, "monai": monai}
PACKAGES = {
    "salakseg": ("salakseg", "onnxruntime-gpu", "rasterio", "numpy"),
    "geoai": ("geoai-py", "torch", "rasterio", "numpy"),
    "monai": ("monai", "torch", "rasterio", "numpy"),
}


if __name__ == "__main__":
    main()
