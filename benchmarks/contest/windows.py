"""Whole images through a network, in windows of one size.

Axes: B window, C channel, K class, H row, W column.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contest.protocol import Picture
from salakseg.network.heads import most_probable
from salakseg.network.model import normalise

_AT_ONCE = 8 * 256 * 256  # pixels of a batch

Place = tuple[slice, slice]


def windows(size: Sequence[int], side: int) -> list[Place]:
    """Windows that cover an image, all of one size: the side, or the image's own where that is smaller.

    Args:
        size: Height and width, pixels.
        side: Side of a window, pixels.
    """
    places: list[list[slice]] = []
    for length in size[:2]:
        own = min(side, length)
        starts = np.linspace(0, length - own, -(-length // own)).round().astype(int)
        places.append([slice(int(start), int(start) + own) for start in starts])
    return [(rows, cols) for rows in places[0] for cols in places[1]]


def window_batches(picture: Picture, side: int, device: torch.device) -> Iterator[tuple[list[Place], Tensor]]:
    """The windows of an image and what the network gets to see of them, float32 [B, 3, H, W]."""
    places = windows(picture.image_HWC.shape, side)
    height, width = picture.image_HWC[places[0]].shape[:2]
    count = max(1, _AT_ONCE // (height * width))
    for first in range(0, len(places), count):
        some = places[first : first + count]
        image_BHWC = torch.from_numpy(np.stack([picture.image_HWC[place] for place in some])).to(device)
        # Channels innermost, as they lie here already: a third quicker, on a CPU too
        image_BCHW = image_BHWC.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
        yield some, normalise(image_BCHW / 255)


@torch.inference_mode()
def label_map(model: nn.Module, picture: Picture, side: int, device: torch.device) -> NDArray[np.uint8]:
    """Class ids of an image by the mean of the heads' logits, uint8 [H, W].

    Args:
        model: A `Segmenter` in evaluation mode.
        picture: The image.
        side: Side of the windows, pixels; where two overlap the later one counts.
        device: Where the network lies.
    """
    label_HW = np.zeros(picture.image_HWC.shape[:2], np.uint8)
    for places, image_BCHW in window_batches(picture, side, device):
        ids_BHW = most_probable(model(image_BCHW).mean_BKHW, 1).to(torch.uint8).cpu().numpy()
        for place, ids_HW in zip(places, ids_BHW, strict=True):
            label_HW[place] = ids_HW
    return label_HW
