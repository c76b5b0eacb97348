"""A synthetic drone orthomosaic of a salak plantation, about 10 cm a pixel, with the labels a person would draw.

`make_scene` reads from the ground up: flown area, grass, roads, water, fields, houses, palms, trees, camera. Each
step paints colours and labels onto one `Canvas` until its class has the share that was drawn for it.

Arrays carry their axes: H rows, W columns, C red green blue. Classes are those of `salakseg.classes.SALAK`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from salakseg.classes import BACKGROUND, IGNORE_INDEX
from salakseg.data import scene_textures as textures
from salakseg.data.scene_canvas import Canvas
from salakseg.data.scene_objects import roof, salak_palm, tree
from salakseg.data.scene_textures import Floats, Mask, fbm, pixel_grid, turned_axes

# The order of `salakseg.classes.SALAK`.
WATER, BUILDING, ROAD, TREE, SALAK_PALM, SOIL = range(1, 7)

FAR = np.float32(1e4)
"""A distance in pixels that no outline reaches."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A mosaic with its labels.

    Attributes:
        image_HWC: uint8 RGB; one flat colour where the drone did not fly.
        valid_HW: bool, True where the drone flew.
        label_HW: uint8 class ids 0 to 6, `IGNORE_INDEX` outside `valid_HW`.
    """

    image_HWC: NDArray[np.uint8]
    valid_HW: Mask
    label_HW: NDArray[np.uint8]


def make_scene(seed: int, height: int, width: int) -> Scene:
    """Draws a plantation.

    Args:
        seed: Not negative; the same seed and size give the same scene.
        height: Rows. All seven classes are present from 768 x 768 upwards.
        width: Columns.

    Returns:
        Image, flown area and labels.
    """
    rng = np.random.default_rng(seed)
    canvas = Canvas(textures.grass(rng, (height, width)), _flown_area(rng, height, width), rng.uniform(0, 2 * np.pi))
    road_distance_HW = _lay_roads(rng, canvas)
    _dig_ponds(rng, canvas, road_distance_HW)
    _plough_fields(rng, canvas)
    _build_houses(rng, canvas, road_distance_HW)
    _plant_palms(rng, canvas)
    _grow_trees(rng, canvas)
    image_HWC = _photograph(rng, canvas)
    image_HWC[~canvas.valid_HW] = 0 if rng.random() < 0.6 else rng.integers(0, 256)
    label_HW = np.where(canvas.valid_HW, canvas.label_HW, np.uint8(IGNORE_INDEX))
    return Scene(image_HWC, canvas.valid_HW, label_HW)


def _flown_area(rng: np.random.Generator, height: int, width: int) -> Mask:
    """An outline in steps, as overlapping photos of a slightly turned flight plan leave it: bool [H, W]."""
    row, column = pixel_grid(height, width)
    tilt = rng.uniform(-0.06, 0.06)
    y, x = row + tilt * (column - width / 2), column - tilt * (row - height / 2)
    inside = np.ones((height, width), np.bool_)
    for across, along, size, length in ((y, x, height, width), (x, y, width, height)):
        photo = np.clip(along / length * 7, 0, 6).astype(int)
        low, high = rng.uniform(0.005, 0.07, (2, 7)) * size
        inside &= (across > low[photo]) & (across < size - high[photo])
    return inside


def _winding(rng: np.random.Generator, canvas: Canvas, angle: float) -> Floats:
    """Signed distance in pixels, float32 [H, W], from a winding line that crosses the scene at an angle."""
    start_row, start_column = rng.uniform(0.3, 0.7, 2) * canvas.shape
    along, across = turned_axes(canvas.shape, start_row, start_column, angle)
    slope = np.zeros_like(along)
    for wavelength in rng.uniform((260, 600), (420, 1000)):
        reach, phase = wavelength * rng.uniform(0.03, 0.06), rng.uniform(0, 2 * np.pi)
        turns = along * np.float32(2 * np.pi / wavelength) + np.float32(phase)
        across = across - np.float32(reach) * np.sin(turns)
        slope += np.float32(reach * 2 * np.pi / wavelength) * np.cos(turns)
    return np.asarray(across / np.sqrt(1 + slope**2), np.float32)


def _lay_roads(rng: np.random.Generator, canvas: Canvas) -> Floats:
    """A paved road, and a dirt track that leaves it; more of both in a large scene.

    Returns:
        float32 [H, W], distance to the nearest road's middle in pixels.
    """
    angle = rng.uniform(0, 2 * np.pi)
    tracks: list[Floats] = []
    paved: list[Floats] = []
    for _ in range(max(1, round(float(np.prod(canvas.shape)) ** 0.5 / 1100))):
        road = _winding(rng, canvas, angle)
        branch = _winding(rng, canvas, angle + rng.choice((-1, 1)) * rng.uniform(1.1, 1.6))
        # A track is 0.72 times as wide as a paved road.
        tracks.append(np.where(road > 0, branch / np.float32(0.72), FAR))
        paved.append(road)
    distance = np.minimum.reduce([np.abs(road) for road in tracks + paved])
    half_width = float(np.quantile(distance[canvas.valid_HW], rng.uniform(0.046, 0.056)))
    ragged = 1.2 * fbm(rng, canvas.shape, 12, 2)
    for number, road in enumerate(tracks + paved):
        surface = textures.track(rng, road / half_width, paved=number >= len(tracks))
        canvas.cover(surface, np.abs(road) - half_width + ragged, ROAD)
    return np.asarray(distance, np.float32)


def _dig_ponds(rng: np.random.Generator, canvas: Canvas, road_distance_HW: Floats) -> None:
    """Ponds away from the roads and a ditch; together a rare class."""
    height, width = canvas.shape
    row, column = pixel_grid(height, width)
    wobble = fbm(rng, canvas.shape, 60, 3)
    # The ditch narrows to nothing where the slow noise is low, so that only a stretch of it holds water.
    ditch = np.abs(_winding(rng, canvas, rng.uniform(0, np.pi))) + 0.5 * np.sqrt(height * width * 0.004)
    shore = ditch + np.clip(8 - 20 * fbm(rng, canvas.shape, 300), 0, 60)
    for number in range(2 + height * width // 1_000_000):
        spots = (rng.uniform(0.15, 0.85, (12, 2)) * canvas.shape).astype(int)
        spot = spots[road_distance_HW[spots[:, 0], spots[:, 1]].argmax()]
        stretch = np.float32(rng.uniform(0.6, 1.0))
        pond = np.hypot((row - spot[0]) * stretch, column - spot[1]) + 7 * wobble + 12 * (number % 2)
        shore = np.minimum(shore, pond)
    free = canvas.valid_HW & (canvas.label_HW == BACKGROUND)
    level = np.sort(shore[free])[canvas.pixels(rng.uniform(0.012, 0.017))]
    depth = np.where(free, shore - level, FAR)
    canvas.cover(textures.water(rng, depth), depth, WATER)


def _plough_fields(rng: np.random.Generator, canvas: Canvas) -> None:
    """Rectangular fields of bare soil, grown together until they have their share."""
    farm_angle = rng.uniform(0, np.pi)
    edge, furrows = np.full(canvas.shape, FAR), np.zeros(canvas.shape, np.float32)
    owner = np.zeros(canvas.shape, np.uint8)
    for number in range(min(max(3, canvas.valid_HW.size // 300_000), 250)):
        row, column = rng.uniform(0.1, 0.9, 2) * canvas.shape
        angle = farm_angle + rng.integers(2) * np.pi / 2 + rng.normal(0, 0.06)
        along, across = turned_axes(canvas.shape, row, column, angle)
        distance = np.maximum(np.abs(along) - rng.uniform(80, 130), np.abs(across) - rng.uniform(55, 80))
        nearer = distance < edge
        edge[nearer], furrows[nearer], owner[nearer] = distance[nearer], across[nearer], number
    edge += 2.0 * fbm(rng, canvas.shape, 22, 3)
    free = canvas.valid_HW & (canvas.label_HW == BACKGROUND)
    level = np.sort(edge[free])[canvas.pixels(rng.uniform(0.10, 0.125))]
    canvas.cover(textures.soil(rng, furrows, owner), np.where(free, edge - level, FAR), SOIL)


def _build_houses(rng: np.random.Generator, canvas: Canvas, road_distance_HW: Floats) -> None:
    """Houses, most of them near a road, none on top of a road, a field, water or another house."""
    missing = canvas.pixels(rng.uniform(0.075, 0.11))
    village_angle = rng.uniform(0, np.pi)
    height, width = canvas.shape
    attempts = max(6000, height * width // 200)
    for attempt in range(attempts):
        if missing <= 0:
            return
        row, column = int(rng.integers(height)), int(rng.integers(width))
        # A crowded scene takes houses that stand off the road and, later, smaller ones.
        if rng.random() > np.exp(-road_distance_HW[row, column] / (90 + 0.1 * attempt)):
            continue
        half_length = rng.uniform(25, 48) * (0.7 if attempt > attempts // 2 else 1.0)
        half_width = half_length * rng.uniform(0.5, 0.75)
        angle = village_angle + rng.integers(2) * np.pi / 2 + rng.normal(0, 0.12)
        if _is_free(canvas, row, column, half_length + 5, half_width + 5, angle):
            stamp = roof(rng, half_length, half_width, angle, canvas.sun)
            missing -= canvas.paste(stamp, row, column, BUILDING, tall=rng.uniform(12, 22))


def _is_free(canvas: Canvas, row: int, column: int, half_length: float, half_width: float, angle: float) -> bool:
    """Whether a turned rectangle lies inside the scene, in the flown area and on background only."""
    along, across = np.linspace(-half_length, half_length, 12)[:, None], np.linspace(-half_width, half_width, 8)
    rows = np.rint(row + along * np.sin(angle) + across * np.cos(angle)).astype(int)
    columns = np.rint(column + along * np.cos(angle) - across * np.sin(angle)).astype(int)
    height, width = canvas.shape
    if rows.min() < 0 or columns.min() < 0 or rows.max() >= height or columns.max() >= width:
        return False
    return bool(np.all(canvas.valid_HW[rows, columns] & (canvas.label_HW[rows, columns] == BACKGROUND)))


def _plant_palms(rng: np.random.Generator, canvas: Canvas) -> None:
    """Plots of palms in rows, plot after plot until the class has its share; then gaps inside clumps are closed."""
    missing = canvas.pixels(rng.uniform(0.35, 0.39))
    room_HW = ndimage.distance_transform_edt(canvas.label_HW == BACKGROUND)
    for row, column, radius, tint_C in _palm_places(rng, canvas):
        if missing <= 0:
            break
        if room_HW[row, column] > 0.7 * radius:
            stamp = salak_palm(rng, radius, canvas.sun, tint_C)
            missing -= canvas.paste(stamp, row, column, SALAK_PALM, tall=5)
    # A person draws around a clump, not around each crown: chinks up to ten pixels wide belong to it.
    palms_HW = (canvas.label_HW == SALAK_PALM).astype(np.uint8)
    clumps_HW = ndimage.minimum_filter(ndimage.maximum_filter(palms_HW, 11), 11).astype(np.bool_)
    canvas.label_HW[clumps_HW & (canvas.label_HW == BACKGROUND)] = SALAK_PALM


def _palm_places(rng: np.random.Generator, canvas: Canvas) -> Iterator[tuple[int, int, float, Floats]]:
    """Row, column, radius and leaf colour of palm after palm; plots are the cells around random points."""
    height, width = canvas.shape
    sites = rng.uniform(0, 1, (max(4, round(height * width / 55_000)), 2)) * canvas.shape
    for site in sites:
        radius, angle = rng.uniform(17, 25), rng.uniform(0, np.pi)
        steps = np.arange(-12, 13)
        along, across = (1.6 * radius * axis.ravel() for axis in np.meshgrid(steps, 0.9 * steps))
        along, across = (axis + rng.normal(0, 0.17 * radius, axis.size) for axis in (along, across))
        rows = np.rint(site[0] + along * np.sin(angle) + across * np.cos(angle)).astype(int)
        columns = np.rint(site[1] + along * np.cos(angle) - across * np.sin(angle)).astype(int)
        tint_C = textures.pick(rng, textures.PALMS)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            if not (0 <= row < height and 0 <= column < width) or rng.random() < 0.05:
                continue
            near, next_near = np.sort(np.hypot(*(sites - (row, column)).T))[:2]
            # The difference keeps a grass baulk between two plots.
            if near == np.hypot(*(site - (row, column))) and next_near - near > 12:
                leaf_C = (tint_C * rng.normal(1, (0.06, 0.04, 0.06))).astype(np.float32)
                yield row, column, radius * rng.uniform(0.85, 1.15), leaf_C


def _grow_trees(rng: np.random.Generator, canvas: Canvas) -> None:
    """Trees on the grass and among the palms, in loose groups, until the class has its share."""
    missing = canvas.pixels(rng.uniform(0.07, 0.10))
    green_HW = np.isin(canvas.label_HW, (BACKGROUND, SALAK_PALM))
    room_HW = ndimage.distance_transform_edt(green_HW & canvas.valid_HW)
    grove_HW = fbm(rng, canvas.shape, 130, 2)
    for attempt in range(20_000):
        if missing <= 0:
            return
        row, column = int(rng.integers(canvas.shape[0])), int(rng.integers(canvas.shape[1]))
        radius = rng.uniform(20, 42)
        on_palms = canvas.label_HW[row, column] == SALAK_PALM
        if room_HW[row, column] < 0.9 * radius or grove_HW[row, column] < 0.4 - attempt / 5000:
            continue
        if canvas.label_HW[row, column] == TREE or (on_palms and rng.random() < 0.7):
            continue
        stamp = tree(rng, radius, canvas.sun)
        missing -= canvas.paste(stamp, row, column, TREE, tall=0.75 * radius)


def _photograph(rng: np.random.Generator, canvas: Canvas) -> NDArray[np.uint8]:
    """Cast shadows, uneven light, colour drift, optics and sensor noise: uint8 [H, W, C]."""
    shadow = ndimage.gaussian_filter(canvas.shadow_HW, 0.8)
    sky_light = np.array((0.36, 0.40, 0.47), np.float32)
    image = canvas.image_HWC * (1 - shadow[..., None] * (1 - sky_light))
    warmth = 0.03 * fbm(rng, canvas.shape, 350, 2) + rng.normal(0, 0.02)
    gain = rng.uniform(0.9, 1.12) * (1 + 0.08 * fbm(rng, canvas.shape, 300, 2))
    image = image * (gain[..., None] * np.stack([1 + warmth, np.ones_like(warmth), 1 - warmth], axis=-1))
    image = ndimage.gaussian_filter(image, (0.55, 0.55, 0))
    brightness_noise = 0.018 * rng.standard_normal(canvas.shape, dtype=np.float32)
    noise = 0.010 * rng.standard_normal(image.shape, dtype=np.float32) + brightness_noise[..., None]
    return np.asarray(np.rint(255 * np.clip(image + noise, 0, 1)), np.uint8)
