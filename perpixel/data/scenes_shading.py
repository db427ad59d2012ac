"""Light, texture, haze and camera noise: turns the geometry of a generated street into a photograph-like image."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import zoom

from perpixel.data.scenes_canvas import SKY_DEPTH, Label, Normal, Part, SceneCanvas
from perpixel.data.scenes_materials import Materials, mix_materials

__all__ = ["shade"]

_Field = NDArray[np.float32]
_AnyField = NDArray[np.float32] | NDArray[np.float64]
_TILE = 256  # texels along a side of the noise tile, a power of two
_HIDDEN = 0.8  # share of a class's own details that full sameness hides


def shade(
    canvas: SceneCanvas, rng: np.random.Generator, *, inconsistency: float, indistinction: float
) -> NDArray[np.uint8]:
    """Renders the canvas (H, W) to an RGB image (H, W, 3) with values in [0, 255]."""
    materials = mix_materials(canvas, rng, inconsistency=inconsistency, indistinction=indistinction)
    return _Shader(canvas, materials, rng).render()


@lru_cache(maxsize=1)
def _noise_tile() -> _Field:
    """Periodic smooth noise with mean 0 and standard deviation 1: three octaves of a fixed random lattice."""
    rng = np.random.default_rng(20240229)
    total = np.zeros((_TILE, _TILE))
    for cells, weight in ((32, 1.0), (64, 0.7), (128, 0.5)):
        lattice = np.pad(rng.standard_normal((cells, cells)), 2, mode="wrap")
        factor = _TILE // cells
        smooth = zoom(lattice, factor, order=3, mode="grid-wrap", grid_mode=True)
        total += weight * smooth[2 * factor : -2 * factor, 2 * factor : -2 * factor]
    return np.asarray((total - total.mean()) / total.std(), dtype=np.float32)


def _noise(u: _AnyField, v: _AnyField) -> _Field:
    """Samples the noise tile at texel coordinates, bilinearly."""
    tile = _noise_tile()
    u_floor, v_floor = np.floor(u), np.floor(v)
    du, dv = u - u_floor, v - v_floor
    left, top = u_floor.astype(np.int32) & (_TILE - 1), v_floor.astype(np.int32) & (_TILE - 1)
    right, below = (left + 1) & (_TILE - 1), (top + 1) & (_TILE - 1)
    upper = tile[top, left] * (1 - du) + tile[top, right] * du
    lower = tile[below, left] * (1 - du) + tile[below, right] * du
    return np.asarray(upper * (1 - dv) + lower * dv, dtype=np.float32)


class _Shader:
    """One rendering: per-pixel fields of a canvas, and the light of one scene."""

    def __init__(self, canvas: SceneCanvas, materials: Materials, rng: np.random.Generator) -> None:
        self.canvas, self.materials, self.rng = canvas, materials, rng
        self.prim = canvas.primitive_map()
        self.instance_of = np.asarray(canvas.prim_instance)
        self.part = np.asarray(canvas.prim_part)
        self.label = np.asarray(canvas.labels)[self.instance_of]
        self.is_sky = (self.label == Label.SKY)[self.prim]
        camera = canvas.camera
        rows, columns = np.arange(canvas.height) + 0.5, np.arange(canvas.width) + 0.5
        self.y = ((rows - camera.y0) / camera.focal).astype(np.float32)[:, None]
        self.x = ((columns - camera.x0) / camera.focal).astype(np.float32)[None, :]
        planes = np.asarray(canvas.prim_plane, dtype=np.float32)  # (primitives, 3, 3)
        self.z = 1.0 / np.maximum(self._affine(planes[:, 0]), 1e-3)
        self.u = self._affine(planes[:, 1]) * self.z
        self.v = self._affine(planes[:, 2]) * self.z
        self.texel = self.z / camera.focal  # metres per pixel, head on
        angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(0.35, 1.6)
        self.sun = (math.cos(angle) * length, math.sin(angle) * length)  # shadow in metres per metre of height
        self.sunny = rng.uniform(0.05, 0.6)

    def _affine(self, coefficients: _Field) -> _Field:
        constant, along_x, along_y = (coefficients[:, i][self.prim] for i in range(3))
        return np.asarray(constant + along_x * self.x + along_y * self.y, dtype=np.float32)

    def render(self) -> NDArray[np.uint8]:
        """Composes material, texture, light, haze and sensor."""
        rng = self.rng
        color = self._zones()
        color *= self._texture()[..., None]
        self._windows(color)
        color *= self._light()[..., None]
        self._sky(color)
        haze = 1.0 - np.exp(-self.z * np.float32(rng.uniform(0.001, 0.009)))
        haze[self.is_sky] = 0.0
        haze_color = 0.5 * self.materials.sky + 105.0
        color += haze[..., None] * (haze_color - color)
        return self._sensor(color)

    def _zones(self) -> _Field:
        """Picks for every pixel the look of its object's zone; zones meet along a wavy line or form patches."""
        count = len(self.canvas.labels)
        labels = np.asarray(self.canvas.labels)
        size = np.ones(count)  # metres across a zone
        for label, metres in ((Label.BUILDING, 5.0), (Label.ROAD, 3.0), (Label.PAVEMENT, 2.0), (Label.TREE, 1.5)):
            size[labels == label] = metres
        size[labels == Label.SKY] = 7.0
        edge = np.where(self.label == Label.SKY, 0.8, 12.0).astype(np.float32)[self.prim]  # sharpness of the border
        shift = self.rng.uniform(0, _TILE, (2, count))
        frequency = (4.0 / size).astype(np.float32)[self.instance_of][self.prim]
        shift_u, shift_v = (row.astype(np.float32)[self.instance_of][self.prim] for row in shift)
        field = _noise(self.u * frequency + shift_u, self.v * frequency + shift_v)
        second = np.clip((field - 0.25) * edge + 0.5, 0.0, 1.0)[..., None]
        first = self.materials.colors[:, 0][self.prim]
        return np.asarray(first + second * (self.materials.colors[:, 1][self.prim] - first), dtype=np.float32)

    def _texture(self) -> _Field:
        """Multiplicative texture: grain, blotches, and joints of bricks and slabs; each fades with distance."""
        fine, coarse, ruled = (self.materials.texture[:, i][self.prim] for i in range(3))
        leaf = np.where(self.label == Label.TREE, 22.0, 60.0).astype(np.float32)[self.prim]  # texels per metre
        grain = _noise(self.u * leaf, self.v * leaf) * np.minimum(1.0, (leaf * self.texel) ** -0.5)
        blotch = _noise(self.u * 2.5 + 31.0, self.v * 2.5 + 57.0)
        slab = np.float32(self.rng.uniform(0.45, 0.9))
        is_slab = (self.label == Label.PAVEMENT) | (self.label == Label.ROAD)
        step_u = np.where(is_slab, slab, 0.5).astype(np.float32)[self.prim]
        step_v = np.where(is_slab, slab, 0.24).astype(np.float32)[self.prim]
        row = np.floor(self.v / step_v)
        across = self.u / step_u + 0.5 * (row % 2)
        joint = (np.abs(across - np.floor(across) - 0.5) > 0.44) | (np.abs(self.v / step_v - row - 0.5) > 0.42)
        fade = np.clip(step_v / (3.0 * self.texel) - 0.4, 0.0, 1.0)
        texture = 1.0 + fine * grain + coarse * blotch - ruled * fade * joint
        return np.clip(texture, 0.25, 1.9).astype(np.float32)

    def _windows(self, color: _Field) -> None:
        """Paints rows of windows and a ground floor onto the facades, in place."""
        rng, count = self.rng, len(self.canvas.labels)
        table = {
            "period": rng.uniform(1.7, 3.4, count),
            "floor": rng.uniform(2.7, 3.5, count),
            "wide": rng.uniform(0.38, 0.74, count),
            "tall": rng.uniform(0.4, 0.66, count),
            "base": rng.uniform(0.0, 1.0, count),
        }
        tint, glow = rng.uniform(-18, 18, (count, 3)), rng.uniform(0.0, 60.0)
        at = np.nonzero((self.part == Part.FACADE)[self.prim])
        prim = self.prim[at]
        instance = self.instance_of[prim]
        field = {name: values.astype(np.float32)[instance] for name, values in table.items()}
        across, up = self.u[at] / field["period"], self.v[at] / field["floor"]
        column, storey = np.floor(across), np.floor(up)
        ground = storey < 1
        wide = np.where(ground & (field["base"] > 0.5), 0.86, field["wide"])
        du, dv = np.abs(across - column - 0.5) * 2, np.abs(up - storey - 0.52) * 2
        pane, frame = (du < wide) & (dv < field["tall"]), (du < wide + 0.09) & (dv < field["tall"] + 0.09)
        cross = frame & ~pane | (pane & (du < 0.06))
        lot = _noise(column * 17.3 + instance.astype(np.float32) * 5.1, storey * 29.7 + 0.5)
        glass = np.array([52.0, 62.0, 76.0]) + tint[instance] + glow * np.maximum(lot, 0.0)[:, None]
        fade = np.clip(field["period"] / (5.0 * self.texel[at]), 0.0, 1.0)
        fade *= 1.0 - _HIDDEN * self.materials.sameness[prim]
        wall = color[at]
        wall += (0.85 * fade * pane)[:, None] * (glass - wall)
        wall += (0.45 * fade * cross)[:, None] * (220.0 - wall)
        wall *= (1.0 - 0.16 * fade * (ground & ~frame))[:, None]
        color[at] = wall

    def _light(self) -> _Field:
        """Sun on each surface, shadows on the ground, and a darker foot of everything that stands."""
        sun_x, sun_z, sunny = *self.sun, self.sunny
        norm = math.hypot(1.0, math.hypot(sun_x, sun_z))
        table = np.ones(len(Normal), dtype=np.float32)
        table[Normal.UP] = 1.0 + 0.1 * sunny
        table[Normal.CAMERA] = 0.86 + 0.45 * sunny * sun_z / norm
        table[Normal.RIGHT] = 0.86 + 0.45 * sunny * sun_x / norm * -1
        table[Normal.LEFT] = 0.86 + 0.45 * sunny * sun_x / norm
        table[Normal.ROUND] = 0.95
        level = table[self.canvas.prim_normal]
        level += np.where(self.label == Label.SKY, 0.0, _HIDDEN * self.materials.sameness) * (1.0 - level)
        light = level.astype(np.float32)[self.prim]
        ground = ((self.label == Label.ROAD) | (self.label == Label.PAVEMENT))[self.prim]
        shadow = np.asarray(self._shadows(), dtype=np.float32) / 255.0
        light *= np.where(ground, 1.0 - (0.18 + 0.6 * sunny) * shadow, 1.0)
        foot = (0.25 * (1.0 - self.materials.sameness))[self.prim] * np.exp(-np.maximum(self.v, 0.0) * 1.6)
        return np.asarray(light * np.where(ground | self.is_sky, 1.0, 1.0 - foot), dtype=np.float32)

    def _shadows(self) -> Image.Image:
        """Draws the shadows of all casts on the ground, a little softened."""
        canvas, camera = self.canvas, self.canvas.camera
        image = Image.new("L", (canvas.width, canvas.height), 0)
        draw = ImageDraw.Draw(image)

        def fill(points: list[tuple[float, float]], value: int) -> None:
            draw.polygon([camera.project(x, 0.0, z) for x, z in points], fill=value)

        for cast in canvas.casts:
            low, high = (
                [(x + self.sun[0] * h, z + self.sun[1] * h) for x, z in cast.outline] for h in (cast.bottom, cast.top)
            )
            if max(z for _, z in low + high) < 1.0:
                continue
            for i in range(len(low)):
                fill([low[i - 1], low[i], high[i], high[i - 1]], 190)
            fill(high, 190)
            if cast.bottom == 0.0:
                fill(list(cast.outline), 255)
        return image.filter(ImageFilter.BoxBlur(0.9 * canvas.scale))

    def _sky(self, color: _Field) -> None:
        """Brightens the sky towards the horizon and lays stretched clouds over it, in place."""
        rng = self.rng
        cover, shift = rng.uniform(-1.0, 1.2), rng.uniform(0, _TILE, 2)
        at = np.nonzero(self.is_sky)
        u, v = self.u[at] / SKY_DEPTH, self.v[at] / SKY_DEPTH
        depth = 1.0 / (v + 0.22)  # clouds flatten towards the horizon
        cloud = _noise(u * depth * 9 + shift[0], depth * 9 + shift[1]) + 0.4 * _noise(u * depth * 30, depth * 30)
        own = 1.0 - _HIDDEN * self.materials.sameness[0]
        amount = np.clip((cloud + cover) * 0.4, 0.0, 0.85)[:, None] * own
        pale = np.exp(-np.maximum(v, 0.0) * 5.0)[:, None] * 0.45 * own
        sky = color[at]
        sky += pale * (238.0 - sky)
        sky += amount * (np.float32(rng.uniform(205, 245)) - sky)
        color[at] = sky

    def _sensor(self, color: _Field) -> NDArray[np.uint8]:
        """Exposure, white balance, vignette, lens blur and noise."""
        rng = self.rng
        cast = rng.uniform(0.96, 1.04, 3) * rng.uniform(0.82, 1.15)
        vignette = 1.0 - rng.uniform(0.0, 0.22) * (self.x**2 + self.y**2)
        color *= cast.astype(np.float32)
        color *= vignette.astype(np.float32)[..., None]
        np.clip(color, 0, 255, out=color)
        blur = rng.uniform(0.35, 0.65) * math.sqrt(self.canvas.scale)
        sharp = Image.fromarray(color.astype(np.uint8))
        image = np.asarray(sharp.filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32)
        noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1.5, 5.0))
        return np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)
