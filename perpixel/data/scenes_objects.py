"""Objects that stand in a generated street: cars, persons, trees, lamps, bollards and signs, drawn onto a SceneCanvas.

All measures are metres. Each function draws one object at ground position (x, z) and registers its shadow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from perpixel.data.scenes_canvas import Cast, Label, Normal, Part, Plane, SceneCanvas

__all__ = ["draw_bollard", "draw_car", "draw_lamp", "draw_person", "draw_sign", "draw_tree"]

_Point = tuple[float, float, float]
_CIRCLE = tuple((math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 12, endpoint=False).tolist())


class _Car:
    """A car under construction: local axes (along, across, up) turned by ``yaw`` and drawn as culled flat faces."""

    def __init__(self, canvas: SceneCanvas, x: float, z: float, yaw: float) -> None:
        self.canvas, self.x, self.z = canvas, x, z
        self.cos, self.sin = math.cos(yaw), math.sin(yaw)
        self.instance = canvas.new_instance(Label.CAR)

    def world(self, point: _Point) -> _Point:
        along, across, up = point
        return (
            self.x + along * self.sin + across * self.cos,
            up,
            self.z + along * self.cos - across * self.sin,
        )

    def face(self, part: Part, points: Sequence[_Point]) -> None:
        """Draws a face if its outer side, the one away from the car's axis, looks at the camera."""
        corners = np.array([self.world(point) for point in points])
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        middle = corners.mean(axis=0)
        inside = np.array([self.x, 0.6, self.z])
        eye = np.array([0.0, self.canvas.camera.height, 0.0])
        if np.dot(normal, middle - inside) * np.dot(normal, eye - middle) <= 0:
            return
        steep = abs(normal[1]) / (float(np.linalg.norm(normal)) + 1e-9)
        sideways = Normal.RIGHT if middle[0] > self.x else Normal.LEFT
        facing = Normal.CAMERA if abs(normal[2]) > abs(normal[0]) else sideways
        plane = self.canvas.camera.facing_plane(self.x, max(float(middle[2]), 0.5))
        primitive = self.canvas.primitive(self.instance, part, Normal.UP if steep > 0.8 else facing, plane)
        self.canvas.polygon_world([(float(p[0]), float(p[1]), float(p[2])) for p in corners], primitive)

    def block(self, low: Sequence[float], high: Sequence[float], *, panes: bool) -> None:
        """Draws a block tapering from ``low`` to ``high``, each (back, front, half width, height)."""
        (back, front, half, bottom), (top_back, top_front, top_half, top) = low, high
        faces = [[(back, s * half, bottom), (front, s * half, bottom), (top_front, s * top_half, top)] for s in (-1, 1)]
        for quad, sign in zip(faces, (-1, 1), strict=True):
            quad.append((top_back, sign * top_half, top))
        for end, top_end in ((back, top_back), (front, top_front)):
            faces.append(
                [(end, -half, bottom), (end, half, bottom), (top_end, top_half, top), (top_end, -top_half, top)]
            )
        for quad in faces:
            self.face(Part.BASE, quad)
            if panes:
                middle = [sum(values) / 4 for values in zip(*quad, strict=True)]
                shrunk = [[m + 0.8 * (value - m) for value, m in zip(p, middle, strict=True)] for p in quad]
                self.face(Part.GLASS, [(p[0], p[1], p[2]) for p in shrunk])
        lid = [
            (top_back, -top_half, top),
            (top_back, top_half, top),
            (top_front, top_half, top),
            (top_front, -top_half, top),
        ]
        self.face(Part.BASE, lid)


def draw_car(canvas: SceneCanvas, rng: np.random.Generator, x: float, z: float, yaw: float) -> None:
    """Draws a car whose nose points along ``yaw`` (radians, 0 = away from the camera)."""
    length, half = rng.uniform(1.9, 2.3), rng.uniform(0.82, 0.95)
    belt, roof = rng.uniform(0.85, 1.0), rng.uniform(1.42, 1.8)
    boot = float(rng.choice([0.06, 0.06, 0.5]))  # hatchback or van twice as often as a saloon
    car = _Car(canvas, x, z, yaw)
    car.block((-length, length, half, 0.22), (-length, length, half, belt), panes=False)
    for side in (-1, 1):
        for along in (-0.62 * length, 0.62 * length):
            car.face(Part.TYRE, [(along + 0.34 * c, side * (half + 0.01), 0.34 + 0.34 * s) for c, s in _CIRCLE])
    cabin = (-length + boot, length * 0.52, half, belt)
    car.block(cabin, (cabin[0] + 0.12 + 0.6 * boot, length * 0.14, half * 0.84, roof), panes=True)
    for end, lamp in ((-length - 0.01, Part.RED_LAMP), (length + 0.01, Part.WHITE_LAMP)):
        for near, far in ((-0.95 * half, -0.62 * half), (0.62 * half, 0.95 * half)):
            car.face(lamp, [(end, near, 0.6), (end, far, 0.6), (end, far, 0.78), (end, near, 0.78)])
    ends = [(-length, -half), (length, -half), (length, half), (-length, half)]
    outline = tuple((p[0], p[2]) for p in (car.world((along, across, 0.0)) for along, across in ends))
    canvas.casts.append(Cast(outline=outline, bottom=0.0, top=1.2))


def _square(x: float, z: float, radius: float) -> tuple[tuple[float, float], ...]:
    return (x - radius, z - radius), (x + radius, z - radius), (x + radius, z + radius), (x - radius, z + radius)


def draw_person(canvas: SceneCanvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draws a standing or walking person, seen from the front or the back."""
    size = rng.uniform(0.88, 1.1)  # 1 is a person of 1.78 m
    stride, arm, coat = rng.uniform(0.1, 0.22), rng.uniform(-0.04, 0.1), rng.uniform(0.55, 0.9)
    wide = rng.uniform(0.9, 1.25)
    instance = canvas.new_instance(Label.PERSON)
    plane = canvas.camera.facing_plane(x, z)

    def shape(part: Part, points: Sequence[tuple[float, float]]) -> None:
        primitive = canvas.primitive(instance, part, Normal.ROUND, plane)
        canvas.polygon_world([(x + size * wide * u, size * v, z) for u, v in points], primitive)

    def ellipse(part: Part, middle: float, half_width: float, half_height: float) -> None:
        shape(part, [(half_width * c / wide, middle + half_height * s) for c, s in _CIRCLE])

    for side in (-1, 1):
        foot = side * stride
        shape(
            Part.TROUSERS,
            [(side * 0.01, 0.92), (side * 0.2, 0.92), (foot + side * 0.1, 0.0), (foot - side * 0.07, 0.0)],
        )
    for side in (-1, 1):
        hand = side * (0.27 + arm)
        shape(
            Part.BASE, [(side * 0.14, 1.45), (side * 0.27, 1.4), (hand + side * 0.05, 0.85), (hand - side * 0.06, 0.85)]
        )
        shape(Part.SKIN, [(hand - 0.05, 0.87), (hand + 0.05, 0.87), (hand + 0.04, 0.77), (hand - 0.04, 0.77)])
    shape(Part.BASE, [(-0.25, 1.46), (0.25, 1.46), (0.22, coat), (-0.22, coat)])
    ellipse(Part.HAIR, 1.65, 0.135, 0.15)
    if rng.random() < 0.6:
        ellipse(Part.SKIN, 1.61, 0.115, 0.125)
    if rng.random() < 0.35:
        shape(Part.SYMBOL, [(-0.17, 1.38), (0.17, 1.38), (0.16, 0.95), (-0.16, 0.95)])  # rucksack
    canvas.casts.append(Cast(outline=_square(x, z, 0.2), bottom=0.0, top=1.75 * size))


def draw_tree(canvas: SceneCanvas, rng: np.random.Generator, x: float, z: float, height: float) -> None:
    """Draws a tree: a tapering trunk with limbs, and a crown of ragged overlapping clumps."""
    crown_half, trunk = height * rng.uniform(0.24, 0.36), height * rng.uniform(0.022, 0.035)
    crown_low = height * rng.uniform(0.25, 0.42)
    middle, half_height = (height + crown_low) / 2, (height - crown_low) / 2
    instance = canvas.new_instance(Label.TREE)
    plane = canvas.camera.facing_plane(x, z)
    primitives = {
        part: canvas.primitive(instance, part, Normal.ROUND, plane)
        for part in (Part.TRUNK, Part.BASE, Part.CROWN_LIGHT)
    }
    for lean in (-0.3, 0.0, 0.3):
        tip = x + lean * crown_half * 2
        bend = crown_low * 0.8 if lean else 0.0
        quad = [(x - trunk, bend, z), (x + trunk, bend, z), (tip + trunk / 2, middle, z), (tip - trunk / 2, middle, z)]
        canvas.polygon_world(quad, primitives[Part.TRUNK])
    count = int(rng.integers(14, 26))
    angle, reach = rng.uniform(0, 2 * math.pi, count), np.sqrt(rng.uniform(0.0, 0.62, count))
    ragged = rng.uniform(0.68, 1.18, (count, len(_CIRCLE)))
    for i in range(count):
        u, v = reach[i] * math.cos(angle[i]) * crown_half, middle + reach[i] * math.sin(angle[i]) * half_height
        lit = i > count * 0.45
        radius = (0.3 if lit else 0.46) * min(crown_half, half_height)
        lift = 0.25 * radius if lit else 0.0
        clump = [
            (x + u + radius * r * c, v + lift + radius * r * s, z)
            for (c, s), r in zip(_CIRCLE, ragged[i].tolist(), strict=True)
        ]
        canvas.polygon_world(clump, primitives[Part.CROWN_LIGHT if lit else Part.BASE])
    canvas.casts.append(Cast(outline=_square(x, z, trunk), bottom=0.0, top=crown_low))
    disc = tuple((x + crown_half * c, z + crown_half * s) for c, s in _CIRCLE)
    canvas.casts.append(Cast(outline=disc, bottom=crown_low, top=height))


def _pole(canvas: SceneCanvas, x: float, z: float, height: float, width: float) -> tuple[int, Plane]:
    """Draws an upright pole and returns its primitive and plane."""
    plane = canvas.camera.facing_plane(x, z)
    primitive = canvas.primitive(canvas.new_instance(Label.POLE), Part.BASE, Normal.ROUND, plane)
    left, top = canvas.camera.project(x - width / 2, height, z)
    right, bottom = canvas.camera.project(x + width / 2, 0.0, z)
    canvas.box(left, top, right, bottom, primitive)
    canvas.casts.append(Cast(outline=_square(x, z, width / 2), bottom=0.0, top=height))
    return primitive, plane


def draw_lamp(canvas: SceneCanvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draws a street lamp whose arm reaches over the road."""
    height, width = rng.uniform(4.8, 7.5), rng.uniform(0.17, 0.24)
    primitive, _ = _pole(canvas, x, z, height, width)
    arm = -math.copysign(rng.uniform(1.0, 2.0), x)
    camera = canvas.camera
    tip = camera.project(x + arm, height + 0.35, z)
    canvas.line([camera.project(x, height, z), tip], 0.6 * width * camera.focal / z, primitive)
    head = 0.35 * camera.focal / z
    canvas.box(tip[0] - head, tip[1], tip[0] + head, tip[1] + 0.55 * head, primitive)


def draw_bollard(canvas: SceneCanvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draws a low post at the edge of the pavement."""
    _pole(canvas, x, z, rng.uniform(0.9, 1.2), rng.uniform(0.13, 0.2))


def draw_sign(canvas: SceneCanvas, rng: np.random.Generator, x: float, z: float) -> None:
    """Draws a traffic sign on its pole: disc, triangle, diamond, square or wide board, with rim and symbol."""
    kind = int(rng.integers(0, 5))
    half = rng.uniform(0.4, 0.55)
    height = rng.uniform(2.3, 3.1)
    _, plane = _pole(canvas, x, z, height + (0.0 if kind == 4 else half), rng.uniform(0.09, 0.12))
    outlines: tuple[Sequence[tuple[float, float]], ...] = (
        _CIRCLE,
        ((-1.1, -0.9), (1.1, -0.9), (0.0, 1.05)),
        ((-1.1, 0.0), (0.0, -1.1), (1.1, 0.0), (0.0, 1.1)),
        ((-0.95, -0.95), (0.95, -0.95), (0.95, 0.95), (-0.95, 0.95)),
        ((-2.0, -0.9), (2.0, -0.9), (2.0, 0.9), (-2.0, 0.9)),
    )
    instance = canvas.new_instance(Label.SIGN)
    for part, share in ((Part.RIM, 1.0), (Part.BASE, 0.8)):
        primitive = canvas.primitive(instance, part, Normal.CAMERA, plane)
        canvas.polygon_world(
            [(x + share * half * u, height + share * half * v, z) for u, v in outlines[kind]], primitive
        )
    symbol = canvas.primitive(instance, Part.SYMBOL, Normal.CAMERA, plane)
    wide, tall = (rng.uniform(0.15, 0.5), rng.uniform(0.1, 0.4))
    wide *= 2.0 if kind == 4 else 1.0
    canvas.polygon_world(
        [
            (x + half * u * wide, height - 0.12 * half + half * v * tall, z)
            for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ],
        symbol,
    )
