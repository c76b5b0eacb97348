"""The Deepness plugin for QGIS, emulated from what is known of its metadata and its steps (0.6.5).

The plugin itself needs QGIS. This follows `FACTS` section 5: every key is decoded by `json.loads`, sizes are static,
colours are divided by 255 and standardised, and each pixel takes the class with the highest probability.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort
import pytest
from exports import TILE, settings, write_tile
from helpers import command
from numpy.typing import NDArray
from rasters import read_map

from salakseg.export.onnx import export_onnx


@dataclass(frozen=True)
class Plugin:
    session: ort.InferenceSession
    metadata: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Self:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        texts = session.get_modelmeta().custom_metadata_map
        metadata = {key: json.loads(text) for key, text in texts.items()}
        (image,), (output,) = session.get_inputs(), session.get_outputs()
        assert image.type == output.type == "tensor(float)"
        batch, channels, height, width = image.shape
        assert isinstance(batch, str) or batch == 1
        assert (channels, height, width) == (3, metadata["tile_size"], metadata["tile_size"])
        assert metadata["tiles_size"] == metadata["tile_size"]
        assert metadata["model_type"] == "Segmentor"
        names = metadata["class_names"]
        assert list(names) == [str(number) for number in range(output.shape[1])]
        assert ("standardization_mean" in metadata) == ("standardization_std" in metadata)
        assert float(metadata["resolution"]) > 0
        assert 0 <= int(metadata["tiles_overlap"]) < 100
        return cls(session, metadata)

    def classes_of(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        data = (image_HWC[None] / 255.0).astype(np.float32)
        data = (data - np.float32(self.metadata["standardization_mean"])) / np.float32(
            self.metadata["standardization_std"]
        )
        (prob,) = self.session.run(None, {self.session.get_inputs()[0].name: data.transpose(0, 3, 1, 2)})
        np.testing.assert_allclose(prob.sum(axis=1), 1, atol=1e-5)
        prob = np.where(prob < self.metadata["seg_thresh"], 0, prob)
        label_HW: NDArray[np.uint8] = prob[0].argmax(axis=0).astype(np.uint8)
        assert self.metadata["seg_small_segment"] == 0  # else a median blur comes here
        return label_HW


@pytest.mark.slow
def test_it_makes_the_map_that_predict_makes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = export_onnx(tiny_checkpoint, tmp_path / "model.onnx", settings(), quick=True).path
    image_CHW = write_tile(tmp_path / "tile.tif")
    command("predict", tmp_path / "tile.tif", "--model", model, "--out", tmp_path / "map.tif", "--device", "cpu")
    expected = read_map(tmp_path / "map.tif")
    assert expected.shape == (TILE, TILE)
    assert len(np.unique(expected)) > 1, "a map of one class proves nothing"
    np.testing.assert_array_equal(Plugin.load(model).classes_of(image_CHW.transpose(1, 2, 0)), expected)
