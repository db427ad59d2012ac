"""Drawing surface of the generated scenes: a camera, planar primitives, and a map that holds one primitive per pixel.

World axes in metres: X to the right, Y up from the ground, Z forward from the camera. Objects are drawn back to front
(painter's algorithm) into one integer map; each primitive keeps the plane it lies in, so depth and surface coordinates
of every pixel follow later in closed form: on a plane seen by a pinhole camera 1/Z, u/Z and v/Z are affine in the pixel
(Heckbert, "Survey of Texture Mapping", IEEE CG&A 1986). Nothing here knows about colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["SKY_DEPTH", "SKY_PLANE", "VOID", "Camera", "Cast", "Label", "Normal", "Part", "Plane", "SceneCanvas"]

VOID = 255
_NEAREST = 0.4  # metres: nothing is projected from nearer than this

Plane = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


class Label(IntEnum):
    """Train ids of the scene classes; VOID is left out of training and scoring."""

    SKY = 0
    BUILDING = 1
    ROAD = 2
    PAVEMENT = 3
    TREE = 4
    CAR = 5
    PERSON = 6
    POLE = 7
    SIGN = 8
    VOID = VOID


class Part(IntEnum):
    """Pieces that share a material, whatever the object they belong to."""

    BASE = 0
    FACADE = 1  # base material plus rows of windows
    ROOF = 2
    MARKING = 3
    KERB = 4
    CROWN_LIGHT = 5
    TRUNK = 6
    GLASS = 7
    TYRE = 8
    RED_LAMP = 9
    WHITE_LAMP = 10
    SKIN = 11
    HAIR = 12
    TROUSERS = 13
    SYMBOL = 14
    RIM = 15
    BONNET = 16


class Normal(IntEnum):
    """Which way a primitive looks; decides how much sun it gets."""

    SKY = 0
    UP = 1
    CAMERA = 2
    RIGHT = 3
    LEFT = 4
    ROUND = 5


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Pinhole camera that looks along Z; ``focal``, ``x0``, ``y0`` in pixels, ``height`` in metres above the ground."""

    focal: float
    x0: float  # column of the vanishing point
    y0: float  # row of the horizon
    height: float

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Returns the pixel (column, row) of a world point; points behind the near plane are moved onto it."""
        scale = self.focal / max(z, _NEAREST)
        return self.x0 + x * scale, self.y0 + (self.height - y) * scale

    def ground_plane(self) -> Plane:
        """Plane Y = 0 with surface coordinates (X, Z)."""
        return (0.0, 0.0, 1.0 / self.height), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)

    def wall_plane(self, x: float) -> Plane:
        """Plane X = x with surface coordinates (Z, Y)."""
        return (0.0, 1.0 / x, 0.0), (1.0, 0.0, 0.0), (0.0, self.height / x, -1.0)

    def facing_plane(self, x: float, z: float) -> Plane:
        """Plane Z = z, which faces the camera, with surface coordinates (X - x, Y)."""
        return (1.0 / z, 0.0, 0.0), (-x / z, 1.0, 0.0), (self.height / z, 0.0, -1.0)


SKY_DEPTH = 20.0  # nominal metres, which set the size of textures in the sky
SKY_PLANE: Plane = ((1.0 / SKY_DEPTH, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Something that throws a shadow: its outline seen from above, and the heights between which it blocks the sun."""

    outline: tuple[tuple[float, float], ...]  # (X, Z) in metres
    bottom: float  # metres; 0 for what stands on the ground
    top: float


@dataclass
class SceneCanvas:
    """One primitive index per pixel, with the tables that say what each primitive is."""

    height: int
    width: int
    camera: Camera
    labels: list[int] = field(default_factory=list)  # per instance
    prim_instance: list[int] = field(default_factory=list)
    prim_part: list[int] = field(default_factory=list)
    prim_normal: list[int] = field(default_factory=list)
    prim_plane: list[Plane] = field(default_factory=list)
    casts: list[Cast] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._image = Image.new("I", (self.width, self.height), 0)
        self._draw = ImageDraw.Draw(self._image)

    @property
    def scale(self) -> float:
        """Pixels per pixel of a 256 x 256 image, at least 1: the width of strips and of the thinnest objects."""
        return max(1.0, min(self.height, self.width) / 256)

    def new_instance(self, label: Label) -> int:
        """Registers an object and returns its index."""
        self.labels.append(int(label))
        return len(self.labels) - 1

    def primitive(self, instance: int, part: Part, normal: Normal, plane: Plane) -> int:
        """Registers a planar piece of an object and returns its index, which is the colour to draw it with."""
        self.prim_instance.append(instance)
        self.prim_part.append(int(part))
        self.prim_normal.append(int(normal))
        self.prim_plane.append(plane)
        return len(self.prim_instance) - 1

    def polygon(self, points: Iterable[tuple[float, float]], primitive: int) -> None:
        """Fills a polygon given in pixels (column, row)."""
        self._draw.polygon(list(points), fill=primitive)

    def polygon_world(self, points: Iterable[tuple[float, float, float]], primitive: int) -> None:
        """Fills a polygon given in metres (X, Y, Z)."""
        self.polygon([self.camera.project(*point) for point in points], primitive)

    def box(self, left: float, top: float, right: float, bottom: float, primitive: int) -> None:
        """Fills an upright rectangle given in pixels, never thinner than the thinnest object."""
        least = round(self.scale)
        x, y = round(left), round(top)
        self._draw.rectangle(
            (x, y, max(x + least, round(right)) - 1, max(y + least, round(bottom)) - 1), fill=primitive
        )

    def line(self, points: Sequence[tuple[float, float]], width: float, primitive: int) -> None:
        """Draws a line of the given width in pixels, never thinner than the thinnest object."""
        self._draw.line(list(points), fill=primitive, width=max(round(self.scale), round(width)))

    def primitive_map(self) -> NDArray[np.int32]:
        """Returns the primitive index of each pixel (H, W)."""
        return np.asarray(self._image, dtype=np.int32)

    def visible_label_map(self) -> NDArray[np.uint8]:
        """Returns the train id of each pixel (H, W), VOID for the car bonnet."""
        per_primitive = np.asarray(self.labels, dtype=np.uint8)[self.prim_instance]
        return per_primitive[self.primitive_map()]

    def instance_map(self) -> NDArray[np.int32]:
        """Returns the object index of each pixel (H, W)."""
        return np.asarray(self.prim_instance, dtype=np.int32)[self.primitive_map()]
