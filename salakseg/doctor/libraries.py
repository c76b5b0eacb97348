"""Python, the packages, ONNX Runtime and GDAL."""

import importlib
import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from salakseg.doctor.finding import Finding, broken, good, warning
from salakseg.doctor.torch_build import find_driver

_NEEDED = {
    "torchvision": "torchvision",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
    "lightning_fabric": "lightning-fabric",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "rio_cogeo": "rio-cogeo",
    "numpy": "numpy",
    "PIL": "pillow",
    "scipy": "scipy",
    "tomli_w": "tomli-w",
    "huggingface_hub": "huggingface-hub",
    "safetensors": "safetensors",
    "pydantic": "pydantic",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
    "tensorboard": "tensorboard",
    "geopandas": "geopandas",
    "pyogrio": "pyogrio",
    "pyproj": "pyproj",
    "shapely": "shapely",
    "filelock": "filelock",
}  # by the name that is imported; those with a check of their own stand there

_EXTRAS = {"dask": "cluster", "distributed": "cluster"}

_ANEW = "pip uninstall onnxruntime onnxruntime-gpu, then pip install"


def python() -> Finding:
    """Version, bits and system."""
    found = f"{platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}"
    if sys.maxsize < 2**32:
        return broken(f"{found}, 32 bits", "install a 64-bit Python: torch has no build for 32 bits")
    if sys.version_info < (3, 11):  # noqa: UP036 - run from a folder, nobody has compared the versions
        return broken(found, "install Python 3.11 or later")
    return good(found)


def packages() -> Finding:
    """Whether every package that is needed is installed and can be imported."""
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        return broken(f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    # torch's own neighbours are left out: what is wrong with torch is said once
    heavy = (
        "torchvision",
        "segmentation_models_pytorch",
        "lightning_fabric",
        "onnxscript",
        "tensorboard",
        "matplotlib",
    )
    failed = {_NEEDED[name]: reason for name in _NEEDED if name not in heavy and (reason := _why_no_import(name))}
    if failed:
        told = "; ".join(f"{package} ({reason})" for package, reason in failed.items())
        return broken(f"cannot be imported: {told}", f"pip install --force-reinstall {' '.join(failed)}")
    return good(f"all {len(_NEEDED)} are installed")


def extras() -> Finding:
    """Optional packages, and the extra that brings each."""
    missing = {module: extra for module, extra in _EXTRAS.items() if find_spec(module) is None}
    if not missing:
        return good(f"{', '.join(_EXTRAS)} are installed")
    wanted = ",".join(sorted(set(missing.values())))
    return Finding(
        good("").status,
        f"{', '.join(missing)} not installed; only predict --workers and --scheduler need them",
        f"if wanted: pip install 'salakseg[{wanted}]'",
    )


def runtime_packages() -> Finding:
    """Which of the two packages of ONNX Runtime is installed; both overwrite each other's files."""
    found = {name: told for name in ("onnxruntime", "onnxruntime-gpu") if (told := _version(name))}
    told = " and ".join(f"{name} {number}" for name, number in found.items())
    package = "onnxruntime-gpu" if find_driver() else "onnxruntime"
    if len(found) == 2:
        return broken(f"{told} are both installed and overwrite each other's files", f"{_ANEW} {package}")
    reason = _why_no_import("onnxruntime", "InferenceSession")
    if reason:
        return broken(f"{told or 'not installed'}; cannot be imported ({reason})", f"{_ANEW} {package}")
    return good(told or "installed without a package's record")


def session() -> Finding:
    """Runs a tiny model that is made on the fly, and says what it really ran on."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from salakseg.network.sessions import open_session, why_not

    shape = [1, 3, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "doctor",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 1, 1], [1.0, 1.0, 1.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    device = "cuda" if find_driver() is not None else "cpu"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows removes no file that is open
        path = Path(folder) / "doctor.onnx"
        onnx.save(model, path)
        opened = open_session(path, device)
        (out,) = opened.run(None, {"x": np.ones(shape, np.float32)})
        provider = str(opened.get_providers()[0])
        del opened
    if not np.allclose(out, 3.0, atol=1e-2):
        return broken(f"{provider} computes wrongly: {float(np.ravel(out)[0])} for 3", f"{_ANEW} onnxruntime")
    reason = why_not(device, provider)
    if device == "cpu":
        return good(f"a model ran on {provider}; there is no NVIDIA driver for another one")
    if reason is None:
        return good(f"a model ran on {provider}")
    said, _, remedy = reason.rpartition("; ")
    if _version("onnxruntime") and _version("onnxruntime-gpu"):
        remedy = "see ONNX Runtime above"
    return warning(f"a model ran on {provider}: {said.rpartition(': ')[2]}", remedy.rstrip("."))


def gdal() -> Finding:
    """GDAL inside rasterio, and whether its driver for cloud-optimised GeoTIFFs writes one."""
    try:
        import numpy as np
        import rasterio
        from rasterio.io import MemoryFile
        from rasterio.transform import from_origin
    except (ImportError, OSError) as error:
        return broken(
            f"rasterio cannot be imported ({str(error).partition(chr(10))[0]})",
            "pip install --force-reinstall rasterio; where conda's GDAL is mixed in, use an environment of its own",
        )
    name = f"{rasterio.__gdal_version__} in rasterio {rasterio.__version__}"
    here = {"crs": "EPSG:32749", "transform": from_origin(431000, 9154000, 0.05, 0.05)}
    try:
        with MemoryFile() as file:
            with file.open(driver="COG", width=64, height=64, count=1, dtype="uint8", **here) as out:
                out.write(np.full((1, 64, 64), 7, np.uint8))
            with file.open() as back:
                whole = bool((back.read() == 7).all()) and back.crs is not None and back.crs.to_epsg() == 32749
    except Exception as error:  # rasterio's errors share no base with GDAL's
        remedy = "pip install --force-reinstall rasterio, and unset GDAL_DATA, PROJ_LIB, PROJ_DATA and GDAL_DRIVER_PATH"
        return broken(f"{name} writes no COG ({str(error).partition(chr(10))[0]})", remedy)
    if not whole:
        return broken(f"{name}: a COG came back changed", "unset PROJ_LIB and PROJ_DATA, which name another PROJ")
    return good(f"{name}, its COG driver works")


def _why_no_import(module: str, attribute: str | None = None) -> str | None:
    """Why a module cannot be imported, or lacks what makes it whole; None if nothing is wrong."""
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a damaged library raises anything
        return str(error).partition("\n")[0] or type(error).__name__
    return f"it has no {attribute}" if attribute and not hasattr(found, attribute) else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
