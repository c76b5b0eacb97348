"""What stands on the ground of the synthetic plantation: palm crowns, trees and roofs, each drawn as a stamp.

Arrays carry their axes: H rows, W columns, C red green blue, F fronds. Angles are radians, clockwise from the
column axis because rows grow downwards; `sun` is the direction that light comes from.
"""

import numpy as np
from scipy.spatial import cKDTree

from salakseg.data.scene_canvas import Stamp
from salakseg.data.scene_textures import GREYS, LEAVES, RUSTS, TILES, TINS, Floats, fbm, mixed, pick, soft, tinted


def _polar(reach: int) -> tuple[Floats, Floats]:
    """Distance from the middle and direction, float32 [H, W] with H = W = 2 * reach + 1."""
    axis = np.arange(-reach, reach + 1, dtype=np.float32)
    return np.hypot(axis[:, None], axis), np.arctan2(axis[:, None], axis)


def salak_palm(rng: np.random.Generator, radius: float, sun: float, tint_C: Floats) -> Stamp:
    """A rosette of long pinnate fronds over a dark heart.

    Args:
        rng: Source of chance.
        radius: Mean reach of the fronds in pixels.
        sun: Direction of the light.
        tint_C: Colour of the leaves.
    """
    distance, angle = _polar(int(radius * 1.15) + 2)
    image = tinted(tint_C, np.full_like(distance, 0.34))
    opacity = np.clip(2.6 * (1 - distance / radius), 0, 0.9)
    count = int(rng.integers(9, 13))
    turn = rng.uniform(0, 2 * np.pi)
    for layer, brightness in enumerate((0.72, 1.18)):
        start = turn + layer * np.pi / count
        frond_light, frond_opacity = _fronds(rng, distance, angle, radius, sun, start, count)
        image = mixed(image, tinted(tint_C, brightness * frond_light), frond_opacity)
        opacity = np.maximum(opacity, frond_opacity)
    lobes = 1 + 0.05 * np.cos(3 * angle + turn) + 0.04 * np.cos(5 * angle - turn)
    return Stamp(image, opacity, distance < 0.93 * radius * lobes)


def _fronds(
    rng: np.random.Generator, distance: Floats, angle: Floats, radius: float, sun: float, start: float, count: int
) -> tuple[Floats, Floats]:
    """Light and opacity, both [H, W], of one whorl of feathered fronds."""
    heading_F = (start + 2 * np.pi / count * (np.arange(count) + rng.uniform(-0.28, 0.28, count))).astype(np.float32)
    length_F = (radius * rng.uniform(0.82, 1.12, count)).astype(np.float32)
    shine_F = rng.uniform(0.8, 1.2, count).astype(np.float32)
    curl = np.float32(rng.uniform(-0.35, 0.35)) * distance / radius
    off_HWF = np.remainder((angle + curl)[..., None] - heading_F + np.pi, 2 * np.pi) - np.pi
    nearest = np.abs(off_HWF).argmin(axis=-1)
    off = np.take_along_axis(off_HWF, nearest[..., None], axis=-1)[..., 0]
    along, across = distance * np.cos(off), distance * np.sin(off)
    part = np.clip(along / length_F[nearest], 0, 1)
    half_width = 0.125 * radius * np.sin(np.pi * part**0.75)
    leaflets = 0.20 * np.cos((along - 0.9 * np.abs(across)) * (2 * np.pi / 3.3))
    # The leaflets fold up from the midrib, so that the half facing the sun is the brighter one.
    fold = 0.2 * np.clip(across, -1, 1) * np.sin(sun - heading_F[nearest])
    droop = 0.16 * np.cos(sun - heading_F[nearest]) * part
    rib = 0.25 * np.exp(-((across / 0.8) ** 2))
    light = shine_F[nearest] * (0.82 + 0.3 * part + leaflets + fold + droop + rib)
    return light.astype(np.float32), soft(np.abs(across) - half_width).astype(np.float32)


def tree(rng: np.random.Generator, radius: float, sun: float) -> Stamp:
    """A round broad-leaved crown, lit from one side, made of lumps of foliage.

    Args:
        rng: Source of chance.
        radius: Mean radius of the crown in pixels.
        sun: Direction of the light.
    """
    distance, angle = _polar(int(radius * 1.3) + 2)
    bulge_HW = np.zeros_like(distance)
    for size, order in ((0.10, 2), (0.06, 3), (0.04, 7)):
        bulge_HW += size * np.cos(order * angle + np.float32(rng.uniform(0, 2 * np.pi)))
    outline = radius * (1 + bulge_HW)
    shape = (distance.shape[0], distance.shape[1])
    dome = np.sqrt(np.clip(1 - (distance / outline) ** 2, 0, 1))
    tufts = _leaf_tufts(rng, shape, radius)
    height = (0.6 * radius * dome + 2.2 * tufts).astype(np.float32)
    down, right = np.gradient(height)
    lit = -(right * np.cos(sun) + down * np.sin(sun))
    light = 0.62 + 0.30 * np.tanh(0.8 * lit) + 0.42 * tufts + 0.07 * fbm(rng, shape, 2)
    ragged = distance - outline + 1.3 * fbm(rng, shape, 5)
    tint = pick(rng, LEAVES, 0.03)
    return Stamp(tinted(tint, np.clip(light, 0.2, 1.6)), soft(ragged.astype(np.float32)), distance < outline)


def _leaf_tufts(rng: np.random.Generator, shape: tuple[int, int], radius: float) -> Floats:
    """Foliage in round tufts: 1 in a tuft's middle, 0 in the dark gaps between tufts; float32 [H, W]."""
    spacing = 0.22 * radius + 2
    middles = rng.uniform(0, 1, (int(np.prod(shape) / spacing**2), 2)) * shape
    pixels = np.stack(np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij"), axis=-1)
    gap, _ = cKDTree(middles).query(pixels)
    return np.asarray(np.clip(1 - (gap / (0.85 * spacing)) ** 2, 0, 1), np.float32)


def roof(rng: np.random.Generator, half_length: float, half_width: float, angle: float, sun: float) -> Stamp:
    """A gabled or hipped roof of sheets or tiles, with a ridge, weathering and rust.

    Args:
        rng: Source of chance.
        half_length: Half the ridge's side in pixels.
        half_width: Half the gable's side in pixels.
        angle: Direction of the ridge.
        sun: Direction of the light.
    """
    distance, bearing = _polar(int(np.hypot(half_length, half_width)) + 3)
    along, across = distance * np.cos(bearing - angle), distance * np.sin(bearing - angle)
    edge = np.maximum(np.abs(along) - half_length, np.abs(across) - half_width)
    hipped = rng.random() < 0.35
    on_hip = (half_length - np.abs(along) < half_width - np.abs(across)) & hipped
    facing = np.where(on_hip, np.sign(along) * np.cos(sun - angle), np.sign(across) * np.sin(sun - angle))
    crest = np.minimum(
        np.abs(across), np.abs(half_length - np.abs(along) - half_width + np.abs(across)) + 9 * (not hipped)
    )
    sheets = rng.normal(0, 0.045, (64, 64))[(along / 10).astype(int) % 64, (across / 15).astype(int) % 64]
    ribs = 0.12 * np.cos(2 * np.pi * np.where(on_hip, across, along) / rng.uniform(4.0, 5.5))
    light = 1.0 + 0.32 * facing + sheets + ribs + 0.32 * np.exp(-((crest / 1.2) ** 2))
    light -= 0.30 * np.exp(-((edge / 1.4) ** 2))
    shape = (distance.shape[0], distance.shape[1])
    palette = TILES if rng.random() < 0.45 else GREYS + TINS
    rust = np.clip(0.55 * fbm(rng, shape, 24, 4) + rng.uniform(-0.5, 0.15), 0, 0.75)
    lit = light.astype(np.float32)
    image = mixed(tinted(pick(rng, palette), lit), tinted(pick(rng, RUSTS), lit), rust.astype(np.float32))
    return Stamp(image, soft(edge.astype(np.float32)), edge < 0)
