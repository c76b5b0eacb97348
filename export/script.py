"""The script that runs an exported model with nothing of ours installed."""

import importlib.resources
from pathlib import Path


def inference_script(model: Path, name: str) -> str:
    """The script's text: Python that needs onnxruntime, numpy and rasterio.

    It finds the model beside itself and reads everything else from the model's metadata.

    Args:
        model: The ONNX file.
        name: What the script itself will be called.
    """
    source = importlib.resources.files("salakseg.export") / "templates" / "inference.py.jinja"
    text = source.read_text(encoding="utf-8")
    # Two names are all that changes; a file's name may hold a quote, which would end the string that it stands in
    return text.replace("{{ model }}", _plain(model.name)).replace("{{ script }}", _plain(name))


def _plain(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')
