"""The sections of a recipe about views: how a patch is changed before the network sees it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from salakseg.train.settings import Section


class AugmentConfig(Section):
    """How a training view is made of a patch."""

    mirror: Literal["none", "horizontal", "dihedral"] = "horizontal"
    """``dihedral`` draws one of the eight flips and turns."""
    zoom_min: float = Field(default=0.5, gt=0.0)
    """Smallest factor of the random scale."""
    zoom_max: float = Field(default=1.6, gt=0.0)
    """Largest factor of the random scale."""
    zoom_step: float = Field(default=0.1, ge=0.0)
    """Distance of the factors that are drawn; 0 draws any."""
    rotation: float = Field(default=0.0, ge=0.0, le=180.0)
    """Largest angle of a random rotation in degrees, either way; what turns in from outside the picture is ignored."""
    jitter: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Largest relative change of brightness, contrast and saturation."""
    strong: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the labelled views whose colours change as much as those of strong views do, by ``[strong]``; for
    networks that shall work on other farms, cameras and light."""
    multi_scale: bool = True
    """Whether every tenth labelled batch is resized to a random side from ``scale_min`` to ``scale_max``, in steps of
    16 pixels."""
    scale_min: int = Field(default=256, ge=32)
    """Smallest side of a resized batch in pixels."""
    scale_max: int = Field(default=384, ge=32)
    """Largest side of a resized batch in pixels."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.zoom_min > self.zoom_max:
            raise ValueError(f"zoom_min {self.zoom_min} is above zoom_max {self.zoom_max}")
        if self.multi_scale and self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} is above scale_max {self.scale_max}")
        return self


class StrongConfig(Section):
    """How a strong view is made of a weak one; the defaults are UniMatch's (Yang et al., CVPR 2023)."""

    jitter_probability: float = Field(default=0.8, ge=0.0, le=1.0)
    """Share of the views whose colours change."""
    brightness: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Largest relative change of brightness."""
    contrast: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Largest relative change of contrast."""
    saturation: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Largest relative change of saturation."""
    hue: float = Field(default=0.25, ge=0.0, le=0.5)
    """Largest turn of the hue, as a share of the whole circle."""
    grey: float = Field(default=0.2, ge=0.0, le=1.0)
    """Share of the views without colour."""
    blur: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the views that are blurred."""
    blur_sigma: float = Field(default=2.0, gt=0.1, le=10.0)
    """Largest standard deviation of the Gaussian blur in pixels; the smallest is 0.1."""
    cutmix_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of the views into which a rectangle of another is pasted."""
    cutmix_area_min: float = Field(default=0.02, gt=0.0, le=1.0)
    """Smallest area of the rectangle as a share of the view."""
    cutmix_area_max: float = Field(default=0.4, gt=0.0, le=1.0)
    """Largest area of the rectangle."""
    cutmix_aspect: float = Field(default=3.3, ge=1.0)
    """Largest ratio of the rectangle's sides."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.cutmix_area_min > self.cutmix_area_max:
            raise ValueError(f"cutmix_area_min {self.cutmix_area_min} is above cutmix_area_max {self.cutmix_area_max}")
        return self
