"""Colours that text stays readable on: contrast as WCAG 2.2 defines it, and the ramps of the heat maps."""

from collections.abc import Sequence

from salakseg.classes import Color

READABLE = 4.5
"""Least contrast of text with its ground, WCAG 2.2 success criterion 1.4.3."""

BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)

HEAT_STEPS = 20
"""Steps of a heat map between 0 and 1: five percent each."""

_LIGHT_RAMP: tuple[Color, ...] = (WHITE, (150, 197, 226), (8, 69, 148))
_DARK_RAMP: tuple[Color, ...] = ((23, 26, 31), (30, 84, 130), (165, 214, 250))


def contrast(one: Color, other: Color) -> float:
    """Contrast of two colours, 1 (the same) to 21 (black and white)."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def readable_ink(ground: Color) -> Color:
    """Black or white, whichever is easier to read on a ground; its contrast is never below `READABLE`."""
    return max(BLACK, WHITE, key=lambda ink: contrast(ink, ground))


def css_color(color: Color) -> str:
    """A colour as CSS and SVG write it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def heat_ramp(dark: bool) -> list[tuple[Color, Color]]:
    """Ground and ink of each step of a heat map, from 0 on.

    Args:
        dark: For a dark page, where much is light; else much is dark.
    """
    ramp = _DARK_RAMP if dark else _LIGHT_RAMP
    grounds = [_between(ramp, step / HEAT_STEPS) for step in range(HEAT_STEPS + 1)]
    return [(ground, readable_ink(ground)) for ground in grounds]


def _between(stops: Sequence[Color], share: float) -> Color:
    """The colour at a share of the way over evenly spaced stops."""
    place = share * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    red, green, blue = (
        round(a + (b - a) * (place - first)) for a, b in zip(stops[first], stops[first + 1], strict=True)
    )
    return (red, green, blue)


def _luminance(color: Color) -> float:
    """Relative luminance, 0 to 1."""
    parts = [part / 255 for part in color]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
