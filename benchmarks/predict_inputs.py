"""What `predict.py` measures on: synthetic rasters, networks with random weights and their files, made once."""

import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window

from salakseg.classes import SALAK
from salakseg.export.cache import cached_onnx
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD, NetworkConfig

TILE, OVERLAP = 512, 128
"""Of the figures to reach, whatever the defaults are."""


def prepared(make: Callable[..., Path], *values: object) -> Path:
    """Makes a file in a process of its own, so that torch is not in the one that is measured."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(make, *values).result()


def random_network(work: Path, encoder: str) -> Path:
    """A checkpoint with random weights whose map is no single colour: calibrated on noise like the raster's."""
    path = work / f"{encoder}.pt"
    if path.exists():
        return path
    import torch

    from salakseg.network.checkpoint import Checkpoint, save_checkpoint
    from salakseg.network.model import Segmenter

    torch.manual_seed(0)
    config = NetworkConfig(encoder=encoder, encoder_weights="none")
    network = Segmenter(config, len(SALAK), load_weights=False)
    image_BCHW = torch.from_numpy(normalise(np.stack([texture(i, 256, 256) for i in range(4)])))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the statistics of this one batch
        network.train()(image_BCHW)
        heads_BNKHW = network.eval()(image_BCHW).heads_BNKHW
        for head, logits_BKHW in zip(network.heads, heads_BNKHW.unbind(1), strict=True):
            spread_K, mean_K = torch.std_mean(logits_BKHW, (0, 2, 3))
            last: Any = list(head.children())[-1]
            last.weight /= spread_K[:, None, None, None]
            last.bias.sub_(mean_K).div_(spread_K)
    state = network.state_dict()
    save_checkpoint(
        Checkpoint(
            config,
            SALAK.to_records(),
            IMAGENET_MEAN,
            IMAGENET_STD,
            patch_size=256,
            student=state,
            ema=state,
            recipe_name="random",
            recipe={},
        ),
        path,
    )
    return path


def onnx_file(checkpoint: Path) -> Path:
    return cached_onnx(checkpoint, TILE)[0]


def torchscript(checkpoint: Path) -> Path:
    """The network for the peers: images of 0 to 1 in, probabilities out."""
    import torch

    from salakseg.network.checkpoint import load_checkpoint
    from salakseg.network.model import normalise as scale

    network = load_checkpoint(checkpoint).build()

    class Probabilities(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
            prob: torch.Tensor = self.network(scale(image_BCHW, IMAGENET_MEAN, IMAGENET_STD)).mean_BKHW.softmax(dim=1)
            return prob

    path = checkpoint.with_suffix(".torchscript")
    warnings.simplefilter("ignore")  # torch's own, of tracing: this process does nothing else
    torch.jit.trace(Probabilities().eval(), torch.rand(2, 3, TILE, TILE)).save(path)
    return path


def texture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Smooth blobs of three sizes and noise, [3, height, width]."""
    rng = np.random.default_rng(seed)
    image_CHW = np.empty((3, height, width), np.uint8)
    for band in image_CHW:
        total = rng.normal(128, 8, (height, width)).astype(np.float32)
        for size, strength in ((256, 35), (64, 25), (16, 15)):
            coarse = rng.normal(0, strength, (height // size + 2, width // size + 2)).astype(np.float32)
            total += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        band[:] = total.clip(0, 255)
    return image_CHW


def normalise(image_NCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled = image_NCHW.astype(np.float32)
    scaled /= 255
    scaled -= np.array(IMAGENET_MEAN, np.float32).reshape(3, 1, 1)
    scaled /= np.array(IMAGENET_STD, np.float32).reshape(3, 1, 1)
    return scaled


def cut_tiles(source: Path) -> NDArray[np.float32]:
    """All tiles of a raster, normalised [N, 3, tile, tile]; mirrored beyond its border."""
    with rasterio.open(source) as dataset:
        image_CHW = dataset.read([1, 2, 3])
    stride = TILE - OVERLAP
    starts = [range(0, max(1, side - OVERLAP), stride) for side in image_CHW.shape[1:]]
    beyond = [(0, max(0, s[-1] + TILE - side)) for s, side in zip(starts, image_CHW.shape[1:], strict=True)]
    image_CHW = np.pad(image_CHW, ((0, 0), *beyond), mode="symmetric")
    return normalise(np.stack([image_CHW[:, y : y + TILE, x : x + TILE] for y in starts[0] for x in starts[1]]))


def profile(height: int, width: int, bands: int) -> dict[str, Any]:
    place = {"crs": "EPSG:32749", "transform": from_origin(430_000, 9_160_000, 0.05, 0.05)}
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "photometric": "RGB"}
    return {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": "uint8", **place, **blocks}


def orthomosaic(work: Path, height: int, width: int) -> Path:
    path = work / f"rgb_{height}x{width}.tif"
    if not path.exists():
        with rasterio.open(path, "w", **profile(height, width, 3)) as dataset:
            dataset.write(texture(0, height, width))
    return path


def sparse_orthomosaic(work: Path, side: int, patches: int, patch_side: int) -> Path:
    """RGBA of which only some squares hold data: alpha 0 and no bytes in the file elsewhere."""
    path = work / f"rgba_{side}_{patches}x{patch_side}.tif"
    cells = side // patch_side
    if path.exists():
        return path
    options = {"ALPHA": "YES", "SPARSE_OK": "TRUE", "BIGTIFF": "YES"}
    chosen = np.random.default_rng(0).choice(cells * cells, patches, replace=False)
    with rasterio.open(path, "w", **profile(side, side, 4), **options) as dataset:
        for seed, cell in enumerate(chosen):
            window = Window(cell % cells * patch_side, cell // cells * patch_side, patch_side, patch_side)
            alpha_1HW = np.full((1, patch_side, patch_side), 255, np.uint8)
            dataset.write(np.concatenate([texture(seed, patch_side, patch_side), alpha_1HW]), window=window)
    return path
