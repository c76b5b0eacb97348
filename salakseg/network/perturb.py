"""Channels of the encoder that are dropped in training, as a perturbation that images cannot show.

Axes: B image of the batch, C channel, H row, W column.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_RATE = 0.5  # share of the channels that are dropped; both papers use it


class ChannelDropout(NamedTuple):
    """Which images of a batch lose channels, and how.

    A tuple, since mixed precision takes a module's arguments apart in search of tensors, and a frozen dataclass cannot
    be put together again.

    Attributes:
        first: The first of them.
        images: How many there are.
        complementary: False: every image loses half of its channels (Yang et al., UniMatch). True: the images are two
            views, all first ones before all second ones; for half of the pairs the second view keeps just the channels
            that the first one loses (Yang et al., UniMatch V2).
    """

    first: int
    images: int
    complementary: bool = False

    def apply(self, features_BCHW: Tensor) -> Tensor:
        """The features with some channels at 0 and the others doubled, so that their sum keeps its expectation."""
        batch, channels = features_BCHW.shape[:2]
        scale_BC = features_BCHW.new_ones(batch, channels)
        own = slice(self.first, self.first + self.images)
        if self.complementary:
            pairs = self.images // 2
            keep_first = torch.rand(pairs, channels, device=features_BCHW.device) < _RATE
            dropped = torch.rand(pairs, 1, device=features_BCHW.device) < 0.5
            both = torch.cat([keep_first, ~keep_first]).to(scale_BC.dtype) / _RATE
            scale_BC[own] = torch.where(torch.cat([dropped, dropped]), both, 1.0)
        else:
            keep = torch.rand(self.images, channels, device=features_BCHW.device) >= _RATE
            scale_BC[own] = keep.to(scale_BC.dtype) / (1 - _RATE)
        return features_BCHW * scale_BC[:, :, None, None]
