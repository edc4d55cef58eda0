"""Made-up flags: what the embedded model learns to see on."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

SHADES = {
    "red": [(206, 17, 38), (237, 28, 36), (170, 21, 27)],
    "white": [(255, 255, 255)],
    "blue": [(0, 56, 168), (0, 114, 198), (117, 178, 221), (0, 35, 102)],
    "green": [(0, 122, 61), (0, 158, 73), (0, 98, 51), (80, 180, 60)],
    "yellow": [(252, 209, 22), (255, 224, 0), (245, 200, 60)],
    "black": [(0, 0, 0), (25, 25, 25)],
    "orange": [(255, 136, 30), (240, 120, 0)],
}
# How often real flags use each colour, roughly.
FREQUENCY = {"red": 5, "white": 5, "green": 4, "blue": 4, "yellow": 3, "black": 2, "orange": 1}
BANDS = {
    ("horizontal", 3): ("top", "middle", "bottom"),
    ("horizontal", 2): ("top", "bottom"),
    ("vertical", 3): ("left", "middle", "right"),
    ("vertical", 2): ("left", "right"),
}
SYMBOLS = {
    "cross": "a cross",
    "crescent": "a crescent",
    "sun": "a sun",
    "star": "a star",
    "triangle": "a triangle",
    "tree": "a tree",
    "eagle": "an eagle",
    "lion": "a lion",
    "dragon": "a dragon",
    "jack": "the British Union Jack",
}
# How often a made-up flag shows each. The beasts are crude shapes: at 64x48 pixels a real one is not much more.
SYMBOL_FREQUENCY = {"cross": 4, "crescent": 4, "sun": 3, "star": 2, "triangle": 2, "tree": 2, "eagle": 2} | {
    "lion": 1.5,
    "dragon": 0.7,
    "jack": 1,
}
FLAG_WIDTH, FLAG_HEIGHT = 160, 120  # the real flags' 4:3, at half their size


@dataclass(frozen=True, eq=False)
class Flag:
    """A drawn flag and what it shows.

    Args:
        image: 160x120 RGB.
        orientation: `horizontal` or `vertical`; `plain` for a field without bands.
        colors: Of the bands, from the top or from the left.
        symbol: The emblem on it, a key of `SYMBOLS`, or None.
    """

    image: Image.Image
    orientation: str
    colors: tuple[str, ...]
    symbol: str | None

    def open(self) -> Image.Image:
        """The image, as a `Document` wants to open it."""
        return self.image

    def description(self) -> str:
        """For example `horizontal: red, white, blue; star`."""
        bands = f"{self.orientation}: {', '.join(self.colors)}"
        return f"{bands}; {self.symbol}" if self.symbol else bands


def draw_flag(rng: random.Random) -> Flag:
    """One to three bands of differing colours, half of the time with an emblem on them.

    Horizontal bands may have a stripe or a canton at the hoist, which a description leaves out.
    """
    n_bands = rng.choice([3, 3, 3, 2, 2, 1])
    orientation = rng.choice(["horizontal", "vertical"])
    colors: list[str] = []
    while len(colors) < n_bands:
        [color] = rng.choices(list(FREQUENCY), list(FREQUENCY.values()))
        if not colors or colors[-1] != color:
            colors.append(color)
    image = Image.new("RGB", (FLAG_WIDTH, FLAG_HEIGHT))
    draw = ImageDraw.Draw(image)
    for i, color in enumerate(colors):
        start, end = i / n_bands, (i + 1) / n_bands
        if orientation == "horizontal":
            box = (0, start * FLAG_HEIGHT, FLAG_WIDTH, end * FLAG_HEIGHT)
        else:
            box = (start * FLAG_WIDTH, 0, end * FLAG_WIDTH, FLAG_HEIGHT)
        draw.rectangle(box, fill=_shade(color, rng))
    if n_bands > 1 and orientation == "horizontal" and rng.random() < 0.3:
        _draw_at_hoist(draw, _shade(rng.choice([c for c in SHADES if c not in colors]), rng), rng)
    symbol = None
    emblem = rng.random()
    if emblem < 0.6:
        [symbol] = rng.choices(list(SYMBOL_FREQUENCY), list(SYMBOL_FREQUENCY.values()))
        _draw_symbol(symbol, image, _shade(rng.choice([c for c in SHADES if c not in colors]), rng), rng)
    elif emblem < 0.7:  # a disc that no question asks about
        _draw_disc(draw, FLAG_WIDTH / 2, FLAG_HEIGHT / 2, rng.uniform(0.1, 0.2) * FLAG_HEIGHT, _shade("white", rng))
    return Flag(image, orientation if n_bands > 1 else "plain", tuple(colors), symbol)


def _shade(color: str, rng: random.Random) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, value + rng.randint(-12, 12))) for value in rng.choice(SHADES[color]))
    return red, green, blue


def _draw_disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: tuple[int, ...]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _draw_star(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: tuple[int, ...]) -> None:
    points = []
    for i in range(10):
        distance = radius if i % 2 == 0 else radius * 0.4
        points.append((x + distance * math.sin(math.pi * i / 5), y - distance * math.cos(math.pi * i / 5)))
    draw.polygon(points, fill=fill)


def _draw_at_hoist(draw: ImageDraw.ImageDraw, fill: tuple[int, ...], rng: random.Random) -> None:
    """An upright stripe, or a canton in the upper corner, over the left end of horizontal bands."""
    bottom = rng.choice([FLAG_HEIGHT, FLAG_HEIGHT // 2])
    draw.rectangle((0, 0, rng.uniform(0.25, 0.42) * FLAG_WIDTH, bottom), fill=fill)


def _draw_symbol(symbol: str, image: Image.Image, fill: tuple[int, int, int], rng: random.Random) -> None:
    draw = ImageDraw.Draw(image)
    x = rng.choice([0.25, 0.5, 0.5]) * FLAG_WIDTH
    y = rng.choice([0.3, 0.5, 0.5, 0.5]) * FLAG_HEIGHT
    radius = rng.uniform(0.14, 0.3) * FLAG_HEIGHT
    if symbol == "cross":
        half = rng.uniform(0.06, 0.12) * FLAG_HEIGHT
        if rng.random() < 0.6:  # from edge to edge, as the Nordic ones
            x, y = rng.choice([0.36, 0.5]) * FLAG_WIDTH, FLAG_HEIGHT / 2
            draw.rectangle((0, y - half, FLAG_WIDTH, y + half), fill=fill)
            draw.rectangle((x - half, 0, x + half, FLAG_HEIGHT), fill=fill)
        else:
            draw.rectangle((x - radius, y - half, x + radius, y + half), fill=fill)
            draw.rectangle((x - half, y - radius, x + half, y + radius), fill=fill)
    elif symbol == "crescent":
        background = image.getpixel((int(x + radius * 0.4), int(y)))
        _draw_disc(draw, x, y, radius, fill)
        _draw_disc(draw, x + radius * 0.35, y, radius * 0.8, background)
        if rng.random() < 0.6:
            _draw_star(draw, x + radius * 0.6, y, radius * 0.4, fill)
    elif symbol == "sun":
        _draw_disc(draw, x, y, radius * 0.55, fill)
        for i in range(12):
            angle = 2 * math.pi * i / 12
            end = (x + radius * math.cos(angle), y + radius * math.sin(angle))
            draw.line((x, y, *end), fill=fill, width=max(2, int(radius * 0.12)))
    elif symbol == "star":
        _draw_star(draw, x, y, radius, fill)
    elif symbol == "tree":
        _draw_tree(draw, x, y, radius, fill, rng)
    elif symbol == "eagle":
        _draw_eagle(draw, x, y, radius * 1.2, fill)
    elif symbol in ("lion", "dragon"):
        _draw_beast(draw, x, y, radius * 1.2, fill, symbol == "dragon", rng)
    elif symbol == "jack":
        _draw_jack(draw)
    else:
        tip = (FLAG_WIDTH * rng.uniform(0.3, 0.5), FLAG_HEIGHT / 2)
        draw.polygon([(0, 0), (0, FLAG_HEIGHT), tip], fill=fill)


def _draw_tree(
    draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: tuple[int, ...], rng: random.Random
) -> None:
    crown = fill if rng.random() < 0.3 else _shade("green", rng)
    trunk = (110, 70, 30) if rng.random() < 0.7 else fill
    draw.rectangle((x - radius * 0.12, y, x + radius * 0.12, y + radius), fill=trunk)
    if rng.random() < 0.5:
        draw.ellipse((x - radius * 0.7, y - radius, x + radius * 0.7, y + radius * 0.2), fill=crown)
    else:
        draw.polygon(
            [(x, y - radius), (x - radius * 0.6, y + radius * 0.4), (x + radius * 0.6, y + radius * 0.4)], crown
        )


def _draw_eagle(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: tuple[int, ...]) -> None:
    """A body, a head, a tail and two spread wings with three feathers each."""
    draw.ellipse((x - radius * 0.25, y - radius * 0.6, x + radius * 0.25, y + radius * 0.6), fill=fill)
    _draw_disc(draw, x + radius * 0.1, y - radius * 0.75, radius * 0.2, fill)
    draw.polygon([(x, y + radius * 0.3), (x - radius * 0.35, y + radius), (x + radius * 0.35, y + radius)], fill=fill)
    for side in (-1, 1):
        wing = [(0, -0.4), (0.9, -0.8), (0.8, 0.0), (0.7, -0.1), (0.65, 0.3), (0.5, 0.1), (0.4, 0.5), (0.1, 0.3)]
        draw.polygon([(x + side * radius * across, y + radius * down) for across, down in wing], fill=fill)


def _draw_beast(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    radius: float,
    fill: tuple[int, ...],
    winged: bool,
    rng: random.Random,
) -> None:
    """A four-legged body with head and tail, to the left or to the right; a dragon is longer and has a wing."""
    side = rng.choice([-1, 1])

    def at(across: float, down: float) -> tuple[float, float]:
        return x + side * radius * across, y + radius * down

    width = max(2, round(radius * 0.16))
    draw.polygon([at(-0.6, -0.2), at(0.4, -0.35), at(0.5, 0.2), at(-0.6, 0.25)], fill=fill)
    _draw_disc(draw, *at(0.65, -0.5), radius * 0.28, fill)
    for across in (-0.55, -0.3, 0.2, 0.45):
        draw.line([at(across, 0.1), at(across + 0.08, 0.75)], fill=fill, width=width)
    draw.line([at(-0.6, 0), at(-0.9, -0.3), at(-0.75, -0.75)], fill=fill, width=width)
    if winged:
        draw.line([at(-0.9, -0.3), at(-1.3, 0.2), at(-1.5, -0.4)], fill=fill, width=width)
        draw.polygon([at(-0.1, -0.2), at(-0.5, -1.1), at(0.2, -0.7)], fill=fill)


def _draw_jack(draw: ImageDraw.ImageDraw) -> None:
    """The British flag in the upper hoist quarter."""
    width, height = FLAG_WIDTH // 2, FLAG_HEIGHT // 2
    red, white, blue = (200, 16, 46), (255, 255, 255), (1, 33, 105)
    draw.rectangle((0, 0, width, height), fill=blue)
    for fill, thickness in ((white, 12), (red, 4)):
        draw.line((0, 0, width, height), fill=fill, width=thickness)
        draw.line((0, height, width, 0), fill=fill, width=thickness)
    for fill, half in ((white, 10), (red, 6)):
        draw.rectangle((0, height // 2 - half, width, height // 2 + half), fill=fill)
        draw.rectangle((width // 2 - half, 0, width // 2 + half, height), fill=fill)
