"""Views on a GPU: the same as on the CPU, and the CPU never waits for them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from salakseg.train.augment import View, resize_view, weak_view
from salakseg.train.data import Batch
from salakseg.train.mixing import class_mask, classmix_mask, cutmix_mask, draw_partners, mix
from salakseg.train.settings_views import AugmentConfig, StrongConfig
from salakseg.train.strong import strong_view

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = torch.device("cuda")
CONFIGS = {
    "plain": AugmentConfig(zoom_step=0.0),
    "everything": AugmentConfig(mirror="dihedral", zoom_step=0.0, rotation=45, jitter=0.4),
}


def batch(device: torch.device) -> Batch:
    """Smooth pictures of two sizes, as the loader would pad them."""
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    image = torch.stack([2 * rows, 2 * columns, rows + columns]).to(torch.uint8).repeat(4, 1, 1, 1)
    label = ((rows // 8 + columns // 8) % 7).to(torch.uint8).repeat(4, 1, 1)
    label[2:, 80:] = 255
    sizes = torch.tensor([[96, 96], [96, 96], [80, 96], [80, 96]])
    return Batch(image.pin_memory(), label.pin_memory(), sizes).to(device)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """An operation that makes the CPU wait for the device is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def everything(device: torch.device, config: AugmentConfig) -> list[torch.Tensor]:
    """All that a step may draw, from one seed."""
    generator = np.random.default_rng(0)
    weak = weak_view(batch(device), config, 64, generator)
    strong = [strong_view(weak, StrongConfig(), generator) for _ in range(2)]
    partner = draw_partners(4, generator, device)
    cut = cutmix_mask((64, 64), 4, StrongConfig(), generator, device)
    classes = classmix_mask(weak.label_BHW, 7, generator)
    rare = class_mask(weak.label_BHW, torch.arange(7, device=device) > 4)
    mixed = View(
        mix(strong[0].image_BCHW, strong[0].image_BCHW[partner], cut),
        mix(weak.label_BHW, weak.label_BHW[partner], classes),
    )
    resized = resize_view(mixed, AugmentConfig(scale_min=48, scale_max=80), generator)
    views = [weak, *strong, mixed, resized]
    return [*(view.image_BCHW for view in views), *(view.label_BHW for view in views), partner, cut, classes, rare]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.usefixtures("no_waiting")
def test_the_cpu_never_waits(name: str) -> None:
    everything(CUDA, CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_gpu_draws_what_a_cpu_draws(name: str) -> None:
    for on_gpu, on_cpu in zip(
        everything(CUDA, CONFIGS[name]), everything(torch.device("cpu"), CONFIGS[name]), strict=True
    ):
        assert on_gpu.device.type == "cuda"
        assert (on_gpu.dtype, on_gpu.shape) == (on_cpu.dtype, on_cpu.shape)
        differs = (on_gpu.cpu().double() - on_cpu.double()).abs() > 1e-2
        assert differs.float().mean() < 0.01  # halfway between two labels either is the nearest
