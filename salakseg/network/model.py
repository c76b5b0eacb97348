"""The segmentation network: an encoder, a decoder and several classification heads on the same features.

Axes: B image of the batch, N head, K class, C channel, H row, W column.
"""

from collections.abc import Sequence
from textwrap import shorten
from typing import cast

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional

from salakseg.errors import RecipeError
from salakseg.network.config import IMAGENET_MEAN, IMAGENET_STD, NetworkConfig
from salakseg.network.dilated import quicken
from salakseg.network.heads import Logits
from salakseg.network.perturb import ChannelDropout
from salakseg.network.weights import load_encoder_weights

_DIVERSE_WIDTH = 256  # channels inside a head of DiverseNet


class Segmenter(nn.Module):
    """Encoder and decoder of segmentation-models-pytorch with N heads.

    Args:
        config: What it is made of.
        num_classes: Number of classes K.
        load_weights: False leaves the encoder at random weights, for a checkpoint that is about to be loaded.

    Raises:
        RecipeError: An unknown encoder or decoder, or a combination that does not work.
        WeightsError: Encoder weights that are not at hand or do not fit.
    """

    def __init__(self, config: NetworkConfig, num_classes: int, load_weights: bool = True) -> None:
        super().__init__()
        trunk = _build_trunk(config)
        self.encoder = cast(nn.Module, trunk.encoder)
        self.decoder = cast(nn.Module, trunk.decoder)
        # DeepLabV3+ looks at two of the encoder's feature maps, other decoders at all but the image itself
        self._seen = (
            (-4, -1) if config.architecture == "deeplabv3plus" else range(-len(trunk.encoder.out_channels) + 1, 0)
        )
        self.size_multiple = max(int(trunk.encoder.output_stride), 16)
        channels = int(trunk.segmentation_head[0].in_channels)
        if config.heads == "diverse" and config.architecture == "deeplabv3plus":
            # DiverseNet's heads start from the concatenated features; DeepLabV3+ ends in a block that they replace.
            channels = int(trunk.decoder.block2[0][0].in_channels)
            self.decoder.block2 = nn.Identity()
        make_head = _v3_head if config.heads == "v3" else _diverse_head
        self.heads = nn.ModuleList(make_head(channels, num_classes, dropout) for dropout in config.head_dropout)
        if load_weights:
            load_encoder_weights(self.encoder, config.encoder, config.encoder_weights)
        quicken(self)

    def forward(self, image_BCHW: Tensor, dropout: ChannelDropout | None = None) -> Logits:
        """Logits of a batch.

        Args:
            image_BCHW: Normalised float images [B, 3, H, W] of any size; borders are replicated up to the next
                multiple of the encoder's stride and cut off again.
            dropout: Channels of the encoder to be dropped, in training.
        """
        height, width = image_BCHW.shape[-2:]
        pad_y, pad_x = -height % self.size_multiple, -width % self.size_multiple
        if pad_y or pad_x:
            image_BCHW = functional.pad(image_BCHW, (0, pad_x, 0, pad_y), mode="replicate")
        maps = self.encoder(image_BCHW)
        if dropout is not None:
            maps = list(maps)
            for level in self._seen:
                maps[level] = dropout.apply(maps[level])
        features = self.decoder(maps)
        coarse = torch.cat([head(features) for head in self.heads], dim=1)
        fine = functional.interpolate(coarse, size=image_BCHW.shape[-2:], mode="bilinear", align_corners=False)
        heads = fine[..., :height, :width].reshape(fine.shape[0], len(self.heads), -1, height, width)
        return Logits(heads, heads.mean(dim=1))

    def classifier_keys(self) -> list[str]:
        """Names in the state dictionary of what holds a row for each class: the last layer of each head."""
        last = [len(cast(nn.Sequential, head)) - 1 for head in self.heads]
        return [f"heads.{n}.{layer}.{part}" for n, layer in enumerate(last) for part in ("weight", "bias")]

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Parameters of the encoder, which learn at the base rate."""
        return list(self.encoder.parameters())

    def other_parameters(self) -> list[nn.Parameter]:
        """Parameters of decoder and heads, which start from nothing and learn faster."""
        return [*self.decoder.parameters(), *self.heads.parameters()]


def normalise(image_BCHW: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> Tensor:
    """Maps red, green and blue from 0 to 1 to the input of the network; the mean colour becomes 0."""
    shift = image_BCHW.new_tensor(mean).view(1, 3, 1, 1)
    return (image_BCHW - shift) / image_BCHW.new_tensor(std).view(1, 3, 1, 1)


def _build_trunk(config: NetworkConfig) -> smp.base.SegmentationModel:
    options: dict[str, object] = {"encoder_name": config.encoder, "encoder_weights": None, "classes": 1}
    if config.architecture.startswith("deeplab"):
        options["encoder_output_stride"] = config.output_stride
    try:
        return smp.create_model(config.architecture, **options)
    except (KeyError, ValueError, RuntimeError, TypeError, NotImplementedError) as error:
        reason = shorten(str(error).strip("'\""), 200, placeholder=" ...")
        raise RecipeError(
            f"No network can be built from network.architecture = {config.architecture!r} and network.encoder = "
            f"{config.encoder!r}: {reason}"
        ) from error


def _v3_head(channels: int, num_classes: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Dropout(dropout), nn.Conv2d(channels, num_classes, kernel_size=1))


def _diverse_head(channels: int, num_classes: int, dropout: float) -> nn.Module:
    """A head of DiverseNet (Ma, Karakus and Rosin): 3x3 convolution, batch norm, ReLU, dropout, 1x1 convolution."""
    return nn.Sequential(
        nn.Conv2d(channels, _DIVERSE_WIDTH, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(_DIVERSE_WIDTH),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(_DIVERSE_WIDTH, num_classes, kernel_size=1),
    )
