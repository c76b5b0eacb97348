"""Does an exported file run on ONNX Runtime 1.17.0, the version that the Deepness plugin for QGIS pins?

Makes an environment of its own (Python 3.11, numpy 1.x) with `uv`, runs the file on noise in both, and compares.

    python benchmarks/onnxruntime_117.py model.onnx [--environment FOLDER]

Ends with status 1 where the file cannot be loaded there, a probability differs by more than its precision explains, or
more than one pixel in ten thousand gets another class although its two best classes are further apart than that.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

OLD = "1.17.0"
BATCHES = (1, 2)
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3, "int8": 5e-2}
"""Of a probability. Integers jump where two runtimes round a sum differently."""

RUN = """
import json, sys
import numpy as np, onnxruntime as ort
model, noise, out = sys.argv[1:]
session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
(image,) = session.get_inputs()
about = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
batches = np.load(noise)
results = {name: session.run(None, {image.name: batches[name]})[0] for name in batches.files}
np.savez(out, **results)
print(json.dumps({"onnxruntime": ort.__version__, "numpy": np.__version__, "python": sys.version.split()[0],
                  "input": image.shape, "keys": len(about), "precision": about.get("salakseg.precision", "fp32")}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--environment", type=Path, help="Where the old runtime is, or will be; default: thrown away.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old = python_of(arguments.environment or folder / "environment")
        noise = folder / "noise.npz"
        side = side_of(arguments.model)
        generator = np.random.default_rng(0)
        batches = {str(n): generator.normal(size=(n, 3, side, side)).astype(np.float32) for n in BATCHES}
        np.savez(noise, **batches)  # type: ignore[arg-type]
        tell(run(Path(sys.executable), arguments.model, noise, folder / "new.npz"))
        about = tell(run(old, arguments.model, noise, folder / "old.npz"))
        return compare(np.load(folder / "new.npz"), np.load(folder / "old.npz"), TOLERANCE[about["precision"]])


def python_of(environment: Path) -> Path:
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        subprocess.run(["uv", "venv", "--quiet", "--python", "3.11", environment], check=True)
        packages = [f"onnxruntime=={OLD}", "numpy<2"]
        subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, *packages], check=True)
    return python


def side_of(model: Path) -> int:
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    side = session.get_inputs()[0].shape[2]
    return side if isinstance(side, int) else 128


def run(python: Path, model: Path, noise: Path, out: Path) -> str:
    done = subprocess.run([python, "-I", "-c", RUN, model, noise, out], capture_output=True, text=True)
    if done.returncode:
        print(done.stderr)
        raise SystemExit(1)
    return done.stdout


def tell(line: str) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(line)
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    return about


def compare(new: Mapping[str, NDArray[Any]], old: Mapping[str, NDArray[Any]], tolerance: float) -> int:
    fine = True
    for batch in map(str, BATCHES):
        difference = float(np.abs(new[batch].astype(np.float32) - old[batch].astype(np.float32)).max())
        other = classes(new[batch]) != classes(old[batch])
        really = other & (margin(new[batch]) > 2 * tolerance)
        fine &= difference <= tolerance and really.mean() <= 1e-4
        print(
            f"batch of {batch}: largest difference {difference:.2g}, another class on {100 * other.mean():.4f} % of "
            f"the pixels, {100 * really.mean():.4f} % without those where two classes all but tie"
        )
    print("the same" if fine else "NOT the same")
    return 0 if fine else 1


def classes(result: NDArray[Any]) -> NDArray[Any]:
    return result.argmax(axis=1) if result.dtype == np.float32 else result


def margin(result: NDArray[Any]) -> NDArray[Any]:
    """How far the two best classes of each pixel are apart; 1 where the file gives class ids."""
    if result.dtype != np.float32:
        return np.ones(result.shape)
    best = np.sort(result, axis=1)[:, -2:]
    return best[:, 1] - best[:, 0]


if __name__ == "__main__":
    sys.exit(main())
