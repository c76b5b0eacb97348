"""Every family of encoders that we recommend exports, in a static and a dynamic file, and agrees with torch."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from salakseg.export.graph import Deployed, build_graph
from salakseg.export.precision import to_half
from salakseg.export.settings import ExportSettings
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD, NetworkConfig
from salakseg.network.model import Segmenter
from salakseg.network.variant import Variant

CLASSES = 4

FAMILIES = (
    ("deeplabv3plus", "resnet18", "v3", 128),
    ("deeplabv3plus", "resnet50", "diverse", 64),
    ("deeplabv3plus", "mobilenet_v2", "v3", None),
    ("deeplabv3plus", "timm-tf_efficientnet_lite0", "v3", None),
    ("segformer", "mit_b0", "v3", 64),
    ("unet", "mit_b0", "v3", None),
    ("unet", "tu-convnext_atto", "v3", None),
    ("upernet", "tu-convnext_atto", "v3", 128),
)


def calibrated(architecture: str, encoder: str, heads: str) -> Segmenter:
    """A network with random weights whose batch norms know their inputs, so that no signal dies on the way."""
    torch.manual_seed(0)
    config = NetworkConfig.model_validate(
        {"architecture": architecture, "encoder": encoder, "encoder_weights": "none", "heads": heads}
    )
    network = Segmenter(config, CLASSES, load_weights=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics of this one batch
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 96, 96))
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "encoder", "heads", "size"), FAMILIES)
def test_a_family_exports_and_agrees(
    architecture: str, encoder: str, heads: str, size: int | None, tmp_path: Path
) -> None:
    network = calibrated(architecture, encoder, heads)
    settings = ExportSettings(variant=Variant(), size=size)
    model = build_graph(
        Deployed(network, settings, IMAGENET_MEAN, IMAGENET_STD).eval(), settings, network.size_multiple
    )
    assert not {node.op_type for node in model.graph.node} & {"BatchNormalization", "Dropout"}
    half = to_half(model)
    onnx.checker.check_model(half)
    assert half.ByteSize() <= 0.52 * model.ByteSize()
    sessions = [ort.InferenceSession(proto.SerializeToString()) for proto in (model, half)]
    multiple = network.size_multiple
    for height, width in [(size, size)] if size else [(multiple, multiple), (2 * multiple, 5 * multiple)]:
        image_BCHW = torch.randn(3, 3, height, width)
        with torch.inference_mode():
            expected = network(image_BCHW).mean_BKHW.softmax(dim=1).numpy()
        exact, rounded = (session.run(None, {"image": image_BCHW.numpy()})[0] for session in sessions)
        assert exact.dtype == rounded.dtype == np.float32
        np.testing.assert_allclose(exact, expected, atol=1e-4)
        np.testing.assert_allclose(rounded, expected, atol=0.1)
        assert np.abs(rounded - expected).mean() < 0.02  # random weights of fifty layers amplify every rounding
        assert (exact.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.9999
