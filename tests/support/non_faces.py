"""Pictures of things that are no human face, some of which look back."""

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

SIDE = 480
BLACK, WHITE = (20, 20, 20), (245, 245, 245)


def draw(background: Colour, *shapes: tuple[object, ...]) -> Picture:
    """Ellipses ("o", x, y, width, height, colour[, turn]), lines ("-", points, colour, width) and
    polygons ("#", points, colour) in order, in pixels of a SIDE square."""
    picture = np.full((SIDE, SIDE, 3), background, np.uint8)
    for kind, *rest in shapes:
        if kind == "o":
            x, y, width, height, colour, *turn = rest
            axes = (width // 2, height // 2)
            cv2.ellipse(picture, (x, y), axes, *(turn or [0]), 0, 360, colour, -1, cv2.LINE_AA)
        elif kind == "-":
            points, colour, width = rest
            cv2.polylines(picture, [np.array(points)], False, colour, width, cv2.LINE_AA)
        else:
            points, colour = rest
            cv2.fillPoly(picture, [np.array(points)], colour, cv2.LINE_AA)
    return picture


def textures() -> dict[str, Picture]:
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:SIDE, :SIDE]

    def coloured(plane: NDArray[np.floating], dark: Colour, bright: Colour) -> Picture:
        share = np.clip(plane, 0, 1)[..., None]
        return np.asarray(dark + share * (np.array(bright) - dark), np.uint8)

    noise = rng.standard_normal((SIDE, SIDE))
    clouds = sum(cv2.GaussianBlur(noise, (0, 0), s) * s for s in (4, 16, 48))
    rings = np.hypot((x - 260) / 1.4 + 9 * np.sin(y / 40), y - 210)
    leaves = np.full((SIDE, SIDE, 3), (30, 60, 25), np.uint8)
    for _ in range(700):
        centre = tuple(int(v) for v in rng.integers(0, SIDE, 2))
        green = (int(rng.integers(20, 90)), int(rng.integers(70, 190)), int(rng.integers(10, 60)))
        turn = int(rng.integers(0, 180))
        cv2.ellipse(leaves, centre, (22, 9), turn, 0, 360, green, -1, cv2.LINE_AA)
    mortar = (y % 40 < 4) | ((x + 48 * (y // 40 % 2)) % 96 < 4)
    return {
        "noise": np.asarray(rng.integers(0, 256, (SIDE, SIDE, 3)), np.uint8),
        "clouds": coloured(0.5 + clouds / 4, (70, 120, 190), (250, 250, 250)),
        "wood": coloured(0.5 + 0.5 * np.sin(rings / 7), (110, 70, 40), (190, 140, 90)),
        "leaves": leaves,
        "bricks": coloured(1.0 - mortar, (190, 185, 180), (150, 70, 50)),
        "stripes": coloured((x + y) // 24 % 2 * 1.0, (40, 40, 90), (230, 210, 120)),
        "dots": coloured(1.0 * (np.hypot(x % 60 - 30, y % 60 - 30) < 14), (240, 230, 220), BLACK),
        "skin": coloured(0.5 + clouds / 9, (196, 140, 112), (240, 196, 170)),
    }


def clock(background: Colour, dial: Colour, hour: float, minute: float) -> Picture:
    def at(angle: float, length: float) -> tuple[int, int]:
        return (
            round(240 + length * np.sin(2 * np.pi * angle)),
            round(240 - length * np.cos(2 * np.pi * angle)),
        )

    ticks = [("-", (at(n / 12, 165), at(n / 12, 190)), BLACK, 8) for n in range(12)]
    hands = [
        ("-", ((240, 240), at(hour, 100)), BLACK, 12),
        ("-", ((240, 240), at(minute, 150)), BLACK, 7),
    ]
    return draw(
        background, ("o", 240, 240, 440, 440, BLACK), ("o", 240, 240, 410, 410, dial),
        *ticks, *hands, ("o", 240, 240, 26, 26, (180, 30, 30)),
    )  # fmt: skip


def plugs() -> dict[str, Picture]:
    plate = (235, 233, 226)
    return {
        "round socket": draw(
            (200, 190, 170), ("#", ((60, 60), (420, 60), (420, 420), (60, 420)), plate),
            ("o", 240, 240, 280, 280, (215, 212, 204)), ("o", 240, 240, 250, 250, (226, 223, 215)),
            ("o", 185, 240, 36, 36, BLACK), ("o", 295, 240, 36, 36, BLACK),
        ),
        "flat socket": draw(
            (150, 170, 180), ("o", 240, 240, 260, 330, plate),
            ("-", ((185, 150), (185, 215)), BLACK, 16), ("-", ((295, 150), (295, 215)), BLACK, 16),
            ("o", 240, 310, 56, 56, BLACK),
        ),
        "three slots": draw(
            (170, 120, 110), ("#", ((80, 80), (400, 80), (400, 400), (80, 400)), plate),
            ("-", ((240, 130), (240, 200)), BLACK, 26),
            ("-", ((140, 300), (200, 300)), BLACK, 24), ("-", ((280, 300), (340, 300)), BLACK, 24),
        ),
    }  # fmt: skip


def eye(x: int, y: int, size: int) -> list[tuple[object, ...]]:
    pupil = ("o", x + size // 10, y + size // 10, size // 2, size // 2, BLACK)
    return [("o", x, y, size, size, WHITE), pupil]


def animals() -> dict[str, Picture]:
    pink = (240, 150, 160)
    return {
        "cat": draw(
            (190, 220, 240), ("#", ((110, 180), (120, 50), (220, 130)), (230, 150, 60)),
            ("#", ((370, 180), (360, 50), (260, 130)), (230, 150, 60)),
            ("o", 240, 250, 300, 270, (230, 150, 60)), *eye(180, 220, 60), *eye(300, 220, 60),
            ("#", ((225, 275), (255, 275), (240, 295)), pink),
            ("-", ((200, 325), (220, 335), (240, 300), (260, 335), (280, 325)), BLACK, 5),
            ("-", ((150, 290), (60, 275)), BLACK, 3), ("-", ((330, 290), (420, 275)), BLACK, 3),
        ),
        "bear": draw(
            (210, 235, 200), ("o", 130, 130, 110, 110, (120, 80, 50)),
            ("o", 350, 130, 110, 110, (120, 80, 50)), ("o", 240, 250, 320, 300, (120, 80, 50)),
            ("o", 240, 310, 150, 120, (210, 180, 140)), ("o", 180, 220, 26, 30, BLACK),
            ("o", 300, 220, 26, 30, BLACK), ("o", 240, 285, 60, 40, BLACK),
            ("-", ((240, 300), (240, 335), (210, 345)), BLACK, 5),
        ),
        "frog": draw(
            (120, 170, 220), ("o", 240, 280, 340, 230, (90, 180, 70)),
            ("o", 150, 170, 110, 110, (90, 180, 70)), ("o", 330, 170, 110, 110, (90, 180, 70)),
            *eye(150, 165, 80), *eye(330, 165, 80),
            ("-", ((110, 300), (180, 340), (300, 340), (370, 300)), (40, 90, 30), 7),
        ),
        "owl": draw(
            (40, 50, 90), ("o", 240, 270, 300, 380, (140, 100, 60)), *eye(175, 200, 120),
            *eye(305, 200, 120), ("#", ((220, 240), (260, 240), (240, 300)), (240, 180, 50)),
        ),
        "pig": draw(
            (200, 240, 210), ("o", 240, 250, 320, 290, pink),
            ("o", 240, 300, 130, 90, (220, 110, 130)),
            ("o", 215, 300, 24, 36, (120, 50, 60)), ("o", 265, 300, 24, 36, (120, 50, 60)),
            *eye(170, 210, 50), *eye(310, 210, 50),
        ),
        "rabbit": draw(
            (240, 230, 200), ("o", 180, 110, 70, 210, (200, 200, 205)),
            ("o", 300, 110, 70, 210, (200, 200, 205)), ("o", 240, 290, 270, 270, (200, 200, 205)),
            ("o", 190, 260, 34, 50, BLACK), ("o", 290, 260, 34, 50, BLACK),
            ("o", 240, 315, 36, 26, pink), ("-", ((240, 328), (240, 360)), BLACK, 4),
            ("#", ((226, 360), (254, 360), (254, 390), (226, 390)), WHITE),
        ),
    }  # fmt: skip


def others() -> dict[str, Picture]:
    red, sand = (170, 30, 30), (225, 200, 160)
    return {
        "car": draw(
            (130, 150, 170),
            ("#", ((60, 380), (60, 220), (140, 110), (340, 110), (420, 220), (420, 380)), red),
            ("#", ((110, 210), (155, 125), (325, 125), (370, 210)), (60, 80, 100)),
            ("o", 115, 265, 70, 60, WHITE), ("o", 365, 265, 70, 60, WHITE),
            ("#", ((170, 290), (310, 290), (300, 350), (180, 350)), BLACK),
        ),
        "house": draw(
            (150, 200, 240),
            ("#", ((90, 430), (90, 200), (240, 80), (390, 200), (390, 430)), sand),
            ("#", ((140, 220), (200, 220), (200, 280), (140, 280)), (60, 80, 110)),
            ("#", ((280, 220), (340, 220), (340, 280), (280, 280)), (60, 80, 110)),
            ("#", ((205, 330), (275, 330), (275, 430), (205, 430)), (110, 60, 40)),
        ),
    }  # fmt: skip


def non_faces() -> dict[str, Picture]:
    """All of them by name."""
    clocks = {
        "clock at ten past ten": clock((90, 110, 90), WHITE, 10.17 / 12, 10 / 60),
        "clock at quarter to three": clock((200, 180, 150), (240, 225, 190), 2.75 / 12, 45 / 60),
        "clock at half past six": clock((60, 60, 80), (210, 220, 230), 6.5 / 12, 30 / 60),
    }
    return textures() | clocks | plugs() | animals() | others()
