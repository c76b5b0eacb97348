"""Real work in the small: a loader worker, a training step, a tile. Axes: B batch, C channel, H row, W column."""

import time
from typing import TYPE_CHECKING

from salakseg.doctor.finding import Finding, broken, good

if TYPE_CHECKING:
    from torch import Tensor

    from salakseg.network.model import Segmenter

STEP_SIZE, TILE_SIZE = 256, 512
"""Sides of the crops of the step and of the tile, in pixels."""

_CLASSES = 7
_WORKER_S = 120  # importing torch in a fresh process takes half a minute on a slow disk


class Sample:
    """What the worker brings: pictures of a usual size, so that too little shared memory shows."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> "Tensor":
        import torch

        return torch.full((3, 512, 512), float(number))


def loader_worker() -> Finding:
    """Starts one worker process by spawn, the only way of Windows and macOS, and takes batches from it."""
    from torch.utils.data import DataLoader

    start = time.perf_counter()
    loader: DataLoader[Tensor] = DataLoader(
        Sample(),  # type: ignore[arg-type]  # no Dataset: torch would have to be imported for the class
        batch_size=4,
        num_workers=1,
        multiprocessing_context="spawn",
        timeout=_WORKER_S,
    )
    try:
        got = [int(batch[-1, 0, 0, 0]) for batch in loader]
    except Exception as error:  # the worker's errors come as any type
        reason = str(error).strip().partition("\n")[0]
        return broken(
            f"does not work ({reason})",
            "train with --set data.workers=0; in a container give more shared memory (docker run --shm-size=2g)",
        )
    if got != [3, 7]:
        return broken(f"brings the wrong batches ({got})", "train with --set data.workers=0")
    return good(f"one was started by spawn and brought its batches in {time.perf_counter() - start:.1f} s")


def training_step() -> Finding:
    """Time of a step forward and back, after one that warms up."""
    import torch

    network, device = _network()
    image_BCHW = torch.rand(2, 3, STEP_SIZE, STEP_SIZE, device=device)
    label_BHW = torch.zeros(2, STEP_SIZE, STEP_SIZE, dtype=torch.long, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(image_BCHW).mean_BKHW, label_BHW)
        loss.backward()
        optimizer.step()
        return float(loss.detach())  # waits for the device

    step()
    start = time.perf_counter()
    loss = step()
    seconds = time.perf_counter() - start
    if not torch.isfinite(torch.tensor(loss)):
        return broken(f"the loss is {loss} on {device}", "update the driver and torch")
    return good(f"{seconds:.3f} s on {device} (EfficientNet-Lite0, 2 crops of {STEP_SIZE} pixels)")


def tile() -> Finding:
    """Time of a tile forward, after one that warms up."""
    import torch

    network, device = _network()
    network.eval()
    image_BCHW = torch.rand(1, 3, TILE_SIZE, TILE_SIZE, device=device)
    with torch.inference_mode():
        network(image_BCHW)
        start = time.perf_counter()
        total = float(network(image_BCHW).mean_BKHW.sum())
    seconds = time.perf_counter() - start
    if total != total:
        return broken(f"the output is no number on {device}", "update the driver and torch")
    return good(f"{seconds:.3f} s on {device} (EfficientNet-Lite0, {TILE_SIZE} pixels)")


def _network() -> tuple["Segmenter", str]:
    from salakseg.network.config import NetworkConfig
    from salakseg.network.device import pick_device
    from salakseg.network.model import Segmenter
    from salakseg.network.weights import OFFLINE_ENCODER

    device = pick_device("auto")
    config = NetworkConfig(encoder=OFFLINE_ENCODER, encoder_weights="none")
    return Segmenter(config, _CLASSES).to(device), device
