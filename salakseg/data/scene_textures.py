"""Noise, palettes and ground covers of the synthetic plantation in `salakseg.data.scene`.

Arrays carry their axes: H rows, W columns, C red green blue. Colours are float32, 0 to 1.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Palette = tuple[tuple[float, float, float], ...]

# The palettes overlap on purpose: a rusty roof has the colour of a field, a pond that of a shaded crown. What tells
# the classes apart is shape and texture, which a network sees and a single pixel does not.
GREENS: Final[Palette] = ((0.32, 0.38, 0.20), (0.25, 0.32, 0.17), (0.42, 0.45, 0.25), (0.37, 0.38, 0.23))
PALMS: Final[Palette] = ((0.31, 0.41, 0.22), (0.27, 0.37, 0.20), (0.38, 0.44, 0.24), (0.28, 0.37, 0.25))
LEAVES: Final[Palette] = ((0.27, 0.37, 0.19), (0.22, 0.31, 0.17), (0.34, 0.40, 0.21), (0.25, 0.34, 0.22))
EARTHS: Final[Palette] = (
    (0.57, 0.46, 0.33),
    (0.52, 0.38, 0.28),
    (0.50, 0.45, 0.38),
    (0.39, 0.32, 0.25),
    (0.60, 0.54, 0.43),
)
STRAWS: Final[Palette] = ((0.53, 0.49, 0.32), (0.47, 0.43, 0.30), (0.41, 0.37, 0.26))
GREYS: Final[Palette] = ((0.45, 0.45, 0.44), (0.56, 0.55, 0.53), (0.37, 0.37, 0.38))
TINS: Final[Palette] = ((0.37, 0.45, 0.37), (0.38, 0.44, 0.50), (0.68, 0.67, 0.64), (0.30, 0.36, 0.27))
TILES: Final[Palette] = ((0.60, 0.37, 0.26), (0.52, 0.34, 0.26), (0.46, 0.31, 0.24), (0.58, 0.44, 0.34))
RUSTS: Final[Palette] = ((0.50, 0.35, 0.26), (0.43, 0.31, 0.24))
WATERS: Final[Palette] = ((0.27, 0.34, 0.28), (0.31, 0.35, 0.27), (0.23, 0.29, 0.25), (0.30, 0.37, 0.33))


def pick(rng: np.random.Generator, palette: Palette, spread: float = 0.025) -> Floats:
    """A colour between two of the palette's, slightly off.

    Returns:
        float32 [C], 0 to 1.
    """
    colours = np.asarray(palette)[rng.integers(len(palette), size=2)]
    share = rng.random()
    colour = share * colours[0] + (1 - share) * colours[1]
    # Brightness strays more than hue, or leaves turn teal and soil turns pink.
    colour = colour * (1 + rng.normal(0, 4 * spread)) + rng.normal(0, 0.5 * spread, 3)
    return np.asarray(np.clip(colour, 0.03, 0.97), np.float32)


def fbm(rng: np.random.Generator, shape: tuple[int, int], cell: float, octaves: int = 1) -> Floats:
    """Fractal noise: random fields, each twice as fine and 0.6 times as strong as the one before, summed.

    Args:
        rng: Source of chance.
        shape: Height and width in pixels.
        cell: Mesh of the coarsest field in pixels.
        octaves: Number of fields; meshes below one pixel stay at one.

    Returns:
        float32 [H, W] with a standard deviation of about 1.
    """
    total = np.zeros(shape, np.float32)
    power = 0.0
    for octave in range(octaves):
        mesh = max(cell / 2**octave, 1.0)
        # Interpolated grids are fast, but a fine one shows its rows and columns.
        total += 0.6**octave * (_smoothed_noise(rng, shape, mesh) if mesh < 8 else _grid_noise(rng, shape, mesh))
        power += 0.36**octave
    return np.asarray(total / power**0.5, np.float32)


def _smoothed_noise(rng: np.random.Generator, shape: tuple[int, int], mesh: float) -> Floats:
    sigma = 0.45 * mesh
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, truncate=2.0)
    return np.asarray(noise * max(1.0, 2 * np.pi**0.5 * sigma), np.float32)


def _grid_noise(rng: np.random.Generator, shape: tuple[int, int], mesh: float) -> Floats:
    height, width = shape
    grid = rng.standard_normal((int(height / mesh) + 3, int(width / mesh) + 3), dtype=np.float32)
    # Two spare meshes and a random offset keep the grid's nodes off the scene's corners.
    left, top = rng.uniform(0.5, 1.0, 2)
    box = (left, top, left + width / mesh, top + height / mesh)
    layer = np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC, box))
    # Between nodes the interpolation averages about a third of the standard deviation away.
    return np.asarray(layer / 0.68, np.float32)


def pixel_grid(height: int, width: int) -> tuple[Floats, Floats]:
    """Row and column of each pixel as broadcastable float32 arrays [H, 1] and [1, W]."""
    return np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]


def turned_axes(shape: tuple[int, int], row: float, column: float, angle: float) -> tuple[Floats, Floats]:
    """Distance of each pixel from a point along and across a direction.

    Args:
        shape: Height and width of the scene in pixels.
        row: Row of the point.
        column: Column of the point.
        angle: The direction in radians, clockwise from the column axis because rows grow downwards.

    Returns:
        Signed distances in pixels, both float32 [H, W].
    """
    rows, columns = pixel_grid(*shape)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    down, right = rows - np.float32(row), columns - np.float32(column)
    return right * cos + down * sin, down * cos - right * sin


def soft(distance: Floats, width: float = 1.5) -> Floats:
    """Anti-aliased inside of an outline.

    Args:
        distance: Signed distance to the outline in pixels, negative inside.
        width: Pixels over which inside turns into outside.

    Returns:
        float32 opacity of the same shape, 0 to 1.
    """
    return np.asarray(np.clip(0.5 - distance / np.float32(width), 0, 1), np.float32)


def tinted(colour_C: Floats, light_HW: Floats) -> Floats:
    """One colour under varying light: float32 [H, W, C]."""
    return light_HW[..., None] * colour_C


def mixed(below_HWC: Floats, above_HWC: Floats, opacity_HW: Floats) -> Floats:
    """Blends one colour field over another; either may be a single colour [C]."""
    return np.asarray(below_HWC + opacity_HW[..., None] * (above_HWC - below_HWC), np.float32)


def grass(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Grass, weeds, straw and dark undergrowth in patches.

    Returns:
        float32 [H, W, C].
    """
    tone = fbm(rng, shape, 150, 4)
    dry = fbm(rng, shape, 190, 5)
    tufts = fbm(rng, shape, 9, 3)
    blades = fbm(rng, shape, 2)
    image = np.broadcast_to(pick(rng, GREENS), (*shape, 3))
    image = mixed(image, pick(rng, GREENS), np.clip(0.5 + 0.7 * tone, 0, 1))
    image = mixed(image, pick(rng, STRAWS), np.clip(0.8 * dry + 0.25 * tufts - 0.2, 0, 0.95))
    shade = np.clip(0.5 * tone - 0.7 * dry + 0.35 * tufts - 0.35, 0, 0.4)
    light = (1 + 0.07 * tufts + 0.10 * blades) * (1 - shade)
    return np.asarray(image * light[..., None], np.float32)


def soil(rng: np.random.Generator, across_HW: Floats, field_HW: NDArray[np.uint8]) -> Floats:
    """Bare fields with furrows, clods and a few weeds.

    Args:
        rng: Source of chance.
        across_HW: Distance across the furrows in pixels.
        field_HW: Which field a pixel belongs to; each has its own two colours and width of furrow.

    Returns:
        float32 [H, W, C].
    """
    shape = (across_HW.shape[0], across_HW.shape[1])
    fields = int(field_HW.max()) + 1
    dry, wet = (np.stack([pick(rng, EARTHS) for _ in range(fields)])[field_HW] for _ in range(2))
    period = rng.uniform(7, 11, fields).astype(np.float32)[field_HW]
    clods = fbm(rng, shape, 5, 2)
    moisture = fbm(rng, shape, 110, 4)
    furrow = np.sin((across_HW + 2 * fbm(rng, shape, 90)) * np.float32(2 * np.pi) / period)
    image = mixed(dry, wet, np.clip(0.5 + 0.5 * moisture, 0, 1))
    image *= (1 + 0.19 * furrow + 0.10 * clods)[..., None]
    weeds = np.clip(0.9 * fbm(rng, shape, 16, 4) - 1.0 - 0.3 * furrow, 0, 0.85)
    return mixed(image, tinted(pick(rng, GREENS), 1 + 0.22 * clods), weeds)


def track(rng: np.random.Generator, lateral_HW: Floats, paved: bool) -> Floats:
    """Surface of a road.

    Args:
        rng: Source of chance.
        lateral_HW: Signed distance from the middle in half-widths: -1 and 1 are the edges.
        paved: Asphalt with darkened wheel tracks, else dirt with pale ones and grass in the middle.

    Returns:
        float32 [H, W, C].
    """
    shape = (lateral_HW.shape[0], lateral_HW.shape[1])
    wheels = np.exp(-(((np.abs(lateral_HW) - 0.48) / 0.2) ** 2))
    wear = fbm(rng, shape, 60, 4)
    gravel = fbm(rng, shape, 2)
    light = 1 + (-0.16 if paved else 0.30) * wheels + 0.04 * wear + 0.08 * gravel
    image = tinted(pick(rng, GREYS if paved else EARTHS), light)
    # Dust lies where no wheel passes: along the edges and in worn patches.
    dust = np.clip(1.6 * np.abs(lateral_HW) - 0.9 + 0.2 * wear, 0, 0.7)
    image = mixed(image, pick(rng, EARTHS), dust)
    verge = np.clip(2.5 * np.abs(lateral_HW) - 2.3 + 0.3 * wear, 0, 0.7)
    if not paved:
        verge = np.maximum(verge, np.clip(0.65 - 3.2 * np.abs(lateral_HW) + 0.25 * wear, 0, 0.7))
    return mixed(image, pick(rng, GREENS), verge)


def water(rng: np.random.Generator, depth_HW: Floats) -> Floats:
    """Murky, smooth water with a dark shore, a reflected sky and faint ripples.

    Args:
        rng: Source of chance.
        depth_HW: Signed distance to the shore in pixels, negative in the water.

    Returns:
        float32 [H, W, C].
    """
    shape = (depth_HW.shape[0], depth_HW.shape[1])
    sky = fbm(rng, shape, 90, 2)
    ripples = fbm(rng, shape, 4)
    image = mixed(pick(rng, WATERS), pick(rng, WATERS), np.clip(0.5 + 0.6 * sky, 0, 1))
    shore = np.exp(-np.abs(depth_HW + 1) / 3.0)
    light = 1.05 + 0.10 * sky + 0.02 * ripples - 0.45 * shore
    return np.asarray(image * light[..., None], np.float32)
