"""What a user can decide about a map."""

from dataclasses import dataclass, field
from typing import Literal

from salakseg.errors import RasterError
from salakseg.mapping.layers import ProbabilityType
from salakseg.mapping.opening import SourceOptions
from salakseg.mapping.plan import Step
from salakseg.mapping.raster import Orthomosaic
from salakseg.mapping.tiling import WindowName
from salakseg.network.engine import GSD_TOLERANCE

MAX_ENLARGEMENT = 10.0
"""An orthomosaic that is coarser than the model by more than this shows nothing of what the model knows."""

MAX_REDUCTION = 1000.0
"""An orthomosaic that is finer by more than this has a wrong georeference."""


@dataclass(frozen=True, slots=True)
class MapSettings:
    """How a map is made; together with orthomosaic and model it decides every byte of it.

    Attributes:
        overlap: Pixels that neighbouring tiles share; None for `default_overlap`.
        window: How a tile counts from its middle to its edge.
        gsd: Metres a pixel that the model wants to see: "auto" takes what the model says of itself, "off" shows it the
            orthomosaic's own pixels.
        out_gsd: Metres a pixel of the map; None for the orthomosaic's own grid.
        source: How the orthomosaic is read.
        probability_type: As what probabilities are written, where they are wanted.
    """

    overlap: int | None = None
    window: WindowName = "hann"
    gsd: float | Literal["auto", "off"] = "auto"
    out_gsd: float | None = None
    source: SourceOptions = field(default_factory=SourceOptions)
    probability_type: ProbabilityType = "uint8"


def default_overlap(tile: int) -> int:
    """Pixels that neighbouring tiles share where the user names none: 3/16, for reasons in `benchmarks/NOTES.md`."""
    return 3 * tile // 16


def model_step(orthomosaic: Orthomosaic, gsd_m: float | None) -> Step:
    """The orthomosaic's pixels, down and across, that a pixel of the model's grid covers.

    Args:
        orthomosaic: The open orthomosaic.
        gsd_m: Metres a pixel that the model wants; None if nobody knows.

    Returns:
        (1, 1) where the two agree within `GSD_TOLERANCE` in both directions, or one of them is unknown.

    Raises:
        RasterError: They are too far apart for a map that means anything.
    """
    if gsd_m is None or orthomosaic.pixel_m is None:
        return 1.0, 1.0
    across, down = (gsd_m / pixel for pixel in orthomosaic.pixel_m)
    if all(abs(1 / step - 1) <= GSD_TOLERANCE for step in (across, down)):
        return 1.0, 1.0
    remedy = "check its georeference, or map its pixels as they are with --gsd off"
    if min(across, down) < 1 / MAX_ENLARGEMENT:
        raise RasterError(
            f"{orthomosaic.path} has {orthomosaic.gsd_m:.3g} m a pixel, {1 / min(across, down):,.0f} times as coarse "
            f"as the {gsd_m:.3g} m that the model knows, and cannot show what it looks for; {remedy}."
        )
    if max(across, down) > MAX_REDUCTION:
        raise RasterError(
            f"{orthomosaic.path} has {orthomosaic.gsd_m:.3g} m a pixel, {max(across, down):,.0f} times as fine as the "
            f"{gsd_m:.3g} m that the model knows; {remedy}."
        )
    return down, across


def map_step(orthomosaic: Orthomosaic, out_gsd: float | None) -> Step:
    """The orthomosaic's pixels, down and across, that a pixel of the map covers.

    Raises:
        RasterError: The orthomosaic's own size on the ground is not known, or quite another.
    """
    if out_gsd is None:
        return 1.0, 1.0
    if orthomosaic.pixel_m is None:
        raise RasterError(f"{orthomosaic.path} names no coordinate reference system, so --out-gsd cannot be kept.")
    finest, coarsest = max(orthomosaic.pixel_m) / MAX_ENLARGEMENT, min(orthomosaic.pixel_m) * MAX_REDUCTION
    if not finest <= out_gsd <= coarsest:
        raise RasterError(
            f"{orthomosaic.path} cannot be mapped at --out-gsd {out_gsd:g}, which is too far from its own pixels; "
            f"choose {finest:.3g} to {coarsest:.3g} m."
        )
    return out_gsd / orthomosaic.pixel_m[1], out_gsd / orthomosaic.pixel_m[0]
