"""Geometry of a generated street: where road, pavements, buildings and objects are, with no word about their looks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from perpixel.data.scenes_canvas import SKY_PLANE, VOID, Camera, Cast, Label, Normal, Part, SceneCanvas
from perpixel.data.scenes_objects import draw_bollard, draw_car, draw_lamp, draw_person, draw_sign, draw_tree

__all__ = ["label_map", "lay_out_street"]

_FAR = 400.0  # metres: as good as the horizon


class _Street:
    """Draws one street onto a canvas; all measures in metres."""

    def __init__(self, canvas: SceneCanvas, rng: np.random.Generator) -> None:
        self.canvas, self.rng, self.camera = canvas, rng, canvas.camera
        offset = rng.uniform(-1.2, 1.2)
        half_road = rng.uniform(3.0, 4.6)
        self.road = (offset - half_road, offset + half_road)
        self.walls = (self.road[0] - rng.uniform(3.0, 5.6), self.road[1] + rng.uniform(3.0, 5.6))
        self.end = rng.uniform(60.0, 130.0)
        crossing = rng.uniform(14.0, 35.0)
        has_crossing = rng.random() < 0.45
        self.crossing = (crossing, crossing + rng.uniform(7.0, 10.0)) if has_crossing else None

    def draw(self) -> None:
        """Draws everything back to front."""
        self._ground()
        self._backdrop()
        self._rows_of_buildings()
        self._objects()
        self._bonnet()

    def _ground_quad(self, primitive: int, x: tuple[float, float], z: tuple[float, float]) -> None:
        corners = ((x[0], z[0]), (x[1], z[0]), (x[1], z[1]), (x[0], z[1]))
        self.canvas.polygon_world([(px, 0.0, pz) for px, pz in corners], primitive)

    def _ground(self) -> None:
        canvas, rng, plane = self.canvas, self.rng, self.camera.ground_plane()
        canvas.primitive(
            canvas.new_instance(Label.SKY), Part.BASE, Normal.SKY, SKY_PLANE
        )  # index 0 fills the empty map
        paving = canvas.new_instance(Label.PAVEMENT)
        slabs = canvas.primitive(paving, Part.BASE, Normal.UP, plane)
        canvas.box(0, self.camera.y0 + 1, canvas.width, canvas.height + 1, slabs)
        kerb = canvas.primitive(paving, Part.KERB, Normal.UP, plane)
        road = canvas.new_instance(Label.ROAD)
        asphalt = canvas.primitive(road, Part.BASE, Normal.UP, plane)
        marking = canvas.primitive(road, Part.MARKING, Normal.UP, plane)
        left, right = self.road
        self._ground_quad(kerb, (left - 0.22, right + 0.22), (0.5, _FAR))
        if self.crossing:
            near, far = self.crossing
            self._ground_quad(kerb, (-_FAR, _FAR), (near - 0.25, far + 0.25))
            self._ground_quad(asphalt, (-_FAR, _FAR), (near, far))
        self._ground_quad(asphalt, (left, right), (0.5, _FAR))
        middle, period = (left + right) / 2, rng.uniform(4.0, 8.0)
        for z in np.arange(rng.uniform(0.5, 3.0), 80.0, period).tolist():
            self._ground_quad(marking, (middle - 0.08, middle + 0.08), (z, z + period * 0.45))
        if rng.random() < 0.5:
            for edge in (left + 0.3, right - 0.3):
                self._ground_quad(marking, (edge - 0.07, edge + 0.07), (0.5, 120.0))
        if rng.random() < 0.4:
            start = self.crossing[0] - 3.5 if self.crossing else rng.uniform(5.0, 16.0)
            for x in np.arange(left + 0.4, right - 0.6, 1.1).tolist():
                self._ground_quad(marking, (x, x + 0.55), (start, start + 2.6))

    def _facing(self, x: tuple[float, float], z: float, height: float, instance: int | None = None) -> None:
        """Draws a facade that looks at the camera."""
        instance = self.canvas.new_instance(Label.BUILDING) if instance is None else instance
        plane = self.camera.facing_plane(x[0], z)
        primitive = self.canvas.primitive(instance, Part.FACADE, Normal.CAMERA, plane)
        corners = ((x[0], 0.0, z), (x[1], 0.0, z), (x[1], height, z), (x[0], height, z))
        self.canvas.polygon_world(corners, primitive)

    def _backdrop(self) -> None:
        """Closes the view with a row of distant buildings and trees behind everything else."""
        rng, reach = self.rng, self.end * self.canvas.width / self.camera.focal
        open_end = rng.random() < 0.35
        x = -reach
        while x < reach:
            width, height = rng.uniform(8.0, 20.0), rng.uniform(5.0, 16.0)
            over_road = x < self.road[1] and x + width > self.road[0]
            if open_end and over_road:
                height *= 0.4
            z = self.end + rng.uniform(0.0, 8.0)
            if rng.random() < 0.35:
                draw_tree(self.canvas, rng, x + width / 2, z, height)
            else:
                self._facing((x, x + width), z, height)
            x += width * rng.uniform(0.8, 1.0)

    def _rows_of_buildings(self) -> None:
        """Draws the plots at both sides, the farthest first; some are gaps with trees."""
        rng = self.rng
        tall = rng.uniform(0.8, 1.6)
        plots: list[tuple[float, float, float, int, float]] = []
        for side in (-1, 1):
            z = rng.uniform(1.0, 5.0)
            while z < self.end:
                length = rng.uniform(7.0, 17.0)
                if self.crossing and z < self.crossing[1] + 3 and z + length > self.crossing[0] - 3:
                    if self.crossing[0] - 3 - z > 4:
                        plots.append((z, self.crossing[0] - 3, rng.uniform(4.5, 13.0) * tall, side, 0.0))
                    z = self.crossing[1] + 3
                    continue
                height = 0.0 if rng.random() < 0.16 else rng.uniform(4.5, 13.0) * tall
                plots.append((z, min(z + length, self.end), height, side, rng.uniform(0.0, 1.5) * (rng.random() < 0.3)))
                z += length
        for near, far, height, side, setback in sorted(plots, reverse=True):
            wall = self.walls[0] if side < 0 else self.walls[1]
            if height:
                self._building(wall + side * setback, side, (near, far), height)
            else:
                for _ in range(2):
                    z = rng.uniform(near + 1.0, max(far - 1.0, near + 1.5))
                    draw_tree(self.canvas, rng, wall + side * rng.uniform(1.5, 6.0), z, rng.uniform(4.0, 8.5))

    def _building(self, x: float, side: int, z: tuple[float, float], height: float) -> None:
        canvas, camera, rng = self.canvas, self.camera, self.rng
        instance = canvas.new_instance(Label.BUILDING)
        normal = Normal.RIGHT if side < 0 else Normal.LEFT
        near, far = max(z[0], 0.6), z[1]
        depth = side * rng.uniform(9.0, 16.0)
        if rng.random() < 0.5:
            roof = canvas.primitive(instance, Part.ROOF, normal, camera.wall_plane(x))
            ridge, top = x + depth / 2, height + abs(depth) * rng.uniform(0.25, 0.45)
            canvas.polygon_world([(x, height, near), (ridge, top, near), (ridge, top, far), (x, height, far)], roof)
            gable = canvas.primitive(instance, Part.BASE, Normal.CAMERA, camera.facing_plane(x, near))
            canvas.polygon_world([(x, height, near), (ridge, top, near), (x + depth, height, near)], gable)
        self._facing((min(x, x + depth), max(x, x + depth)), near, height, instance)
        wall = canvas.primitive(instance, Part.FACADE, normal, camera.wall_plane(x))
        canvas.polygon_world([(x, 0.0, near), (x, height, near), (x, height, far), (x, 0.0, far)], wall)
        outline = ((x, near), (x, far), (x + depth, far), (x + depth, near))
        canvas.casts.append(Cast(outline=outline, bottom=0.0, top=height))

    def _near_limit(self, x: float, least: float) -> float:
        """Nearest depth at which a point at sideways position x is well inside the picture."""
        room = self.camera.x0 if x < 0 else self.canvas.width - self.camera.x0
        return max(least, abs(x) * self.camera.focal / (0.9 * room))

    def _objects(self) -> None:
        """Places what stands between the facades and draws it, the farthest first."""
        rng = self.rng
        placed: list[tuple[float, str, float]] = []

        def place(kind: str, x: float, spread: float, least: float = 5.0) -> None:
            placed.append((self._near_limit(x, least) * rng.uniform(1.0, spread), kind, x))

        kerbs = (self.road[0], self.road[1])
        for side, kerb, wall in ((-1, kerbs[0], self.walls[0]), (1, kerbs[1], self.walls[1])):
            parked = rng.random() < 0.6
            z = self._near_limit(kerb, 6.0) * rng.uniform(0.85, 1.5)
            while parked and z < 45:
                if rng.random() < 0.65:
                    placed.append((z, "parked", kerb - side * 1.05))
                z += rng.uniform(5.2, 7.5)
            for _ in range(int(rng.integers(2, 5))):
                place("person", rng.uniform(min(kerb + side * 0.5, wall), max(kerb + side * 0.5, wall) - 0.4), 1.35)
            edge = kerb + side * 0.45
            lamp, step = self._near_limit(edge, 6.0) * rng.uniform(0.95, 1.5), rng.uniform(9.0, 16.0)
            placed += [(lamp + i * step, "lamp", edge) for i in range(2)]
            place("sign", kerb + side * rng.uniform(0.4, 0.9), 1.5)
            if rng.random() < 0.5:
                place("sign", kerb + side * rng.uniform(0.4, 0.9), 2.5)
            if rng.random() < 0.3:
                first = self._near_limit(edge, 5.0)
                placed += [(first + 1.6 * i, "bollard", edge) for i in range(int(rng.integers(2, 6)))]
            if rng.random() < 0.55:
                first, step = self._near_limit(edge, 8.0) * rng.uniform(1.0, 1.6), rng.uniform(6.0, 11.0)
                placed += [(first + i * step, "tree", kerb + side * 1.0) for i in range(int(rng.integers(1, 6)))]
        if rng.random() < 0.7:
            place("ahead", (self.road[0] + 3 * self.road[1]) / 4, 3.0, 8.0)
        if rng.random() < 0.6:
            place("oncoming", (3 * self.road[0] + self.road[1]) / 4, 3.0, 8.0)
        if rng.random() < 0.55:
            place("person", rng.uniform(self.road[0] + 1, self.road[1] - 1), 1.6, 6.5)
        if self.crossing and rng.random() < 0.6:
            placed.append((sum(self.crossing) / 2, "across", rng.uniform(-8.0, 8.0)))
        for z, kind, x in sorted(placed, reverse=True):
            self._object(kind, x, z)

    def _object(self, kind: str, x: float, z: float) -> None:
        canvas, rng = self.canvas, self.rng
        if kind == "person":
            draw_person(canvas, rng, x, z)
        elif kind == "tree":
            draw_tree(canvas, rng, x, z, rng.uniform(3.8, 7.0))
        elif kind == "lamp":
            draw_lamp(canvas, rng, x, z)
        elif kind == "sign":
            draw_sign(canvas, rng, x, z)
        elif kind == "bollard":
            draw_bollard(canvas, rng, x, z)
        else:
            turn = {"parked": 0.0, "ahead": 0.0, "oncoming": math.pi, "across": math.pi / 2}[kind]
            flip = math.pi if kind in ("parked", "across") and rng.random() < 0.4 else 0.0
            draw_car(canvas, rng, x, z, turn + flip + rng.uniform(-0.06, 0.06))

    def _bonnet(self) -> None:
        """Draws the bonnet of the car that carries the camera; no class owns it."""
        canvas, rng = self.canvas, self.rng
        if rng.random() < 0.2:
            return
        plane = self.camera.facing_plane(0.0, 1.0)
        primitive = canvas.primitive(canvas.new_instance(Label.VOID), Part.BONNET, Normal.UP, plane)
        rise, lean = rng.uniform(0.04, 0.09) * canvas.height, rng.uniform(-0.1, 0.1)
        across = np.linspace(0.0, 1.0, 25)
        arch = canvas.height - rise * np.clip(1.15 - np.abs(2 * across - 1 + lean) ** 2.5, 0.0, None)
        points = list(zip((across * canvas.width).tolist(), arch.tolist(), strict=True))
        canvas.polygon([(0.0, canvas.height), *points, (canvas.width, canvas.height)], primitive)


def lay_out_street(height: int, width: int, rng: np.random.Generator) -> SceneCanvas:
    """Draws the geometry of one random street of ``height`` x ``width`` pixels."""
    focal = 0.45 * (height + width)
    camera = Camera(
        focal=focal,
        x0=width * rng.uniform(0.38, 0.62),
        y0=height * rng.uniform(0.40, 0.52),
        height=rng.uniform(1.6, 2.3),
    )
    canvas = SceneCanvas(height=height, width=width, camera=camera)
    _Street(canvas, rng).draw()
    return canvas


def label_map(canvas: SceneCanvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns the train ids (H, W), with VOID on the bonnet and on thin strips around some of the larger objects."""
    mask = canvas.visible_label_map()
    labels = np.asarray(canvas.labels)
    wide = np.isin(labels, (Label.BUILDING, Label.TREE, Label.CAR, Label.PERSON))
    outlined = wide & (rng.random(len(labels)) < 0.25)
    instances = canvas.instance_map()
    strip = np.zeros(mask.shape, dtype=bool)
    reach = round(canvas.scale)
    for axis in (0, 1):
        ahead, behind = [slice(None)] * 2, [slice(None)] * 2
        ahead[axis], behind[axis] = slice(reach, None), slice(None, -reach)
        first, second = instances[tuple(ahead)], instances[tuple(behind)]
        border = (first != second) & (outlined[first] | outlined[second])
        strip[tuple(ahead)] |= border
    thin = (mask == Label.POLE) | (mask == Label.SIGN)
    mask[strip & ~thin] = VOID
    return mask
