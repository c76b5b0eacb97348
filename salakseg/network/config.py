"""What a network is made of: the part of a recipe that also stands in every checkpoint."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue on a scale of 0 to 1, as the weights of torchvision and timm expect it."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation to `IMAGENET_MEAN`."""


class NetworkConfig(BaseModel):
    """Encoder, decoder and heads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = "deeplabv3plus"
    """Decoder of segmentation-models-pytorch."""
    encoder: str = "resnet50"
    """Encoder of segmentation-models-pytorch, such as ``resnet50`` or ``timm-tf_efficientnet_lite0``."""
    encoder_weights: str = "imagenet"
    """``imagenet``, ``none`` or a file with a state dictionary of the encoder."""
    output_stride: Literal[8, 16] = 16
    """Input pixels for each pixel of the encoder's last feature map; DeepLab only."""
    heads: Literal["v3", "diverse"] = "v3"
    """``v3``: dropout and a 1x1 convolution; ``diverse``: DiverseNet's, which begin with a 3x3 convolution."""
    head_dropout: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], ...] = Field(default=(0.10, 0.15, 0.20), min_length=1)
    """Dropout of each head, 0 to 1; there are as many heads as values."""
