"""Materials of the generated scenes: a colour and texture strength for every primitive, driven by the two knobs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpixel.data.scenes_canvas import Label, Part, SceneCanvas

__all__ = ["Materials", "mix_materials"]

_Rgb = tuple[float, float, float]

# Looks a class may have as a whole in one scene, then the far wider set its instances may have when inconsistent.
_USUAL: dict[Label, tuple[_Rgb, ...]] = {
    Label.SKY: ((120, 165, 225), (150, 188, 232), (188, 204, 222)),
    Label.BUILDING: ((150, 84, 66), (196, 160, 112), (172, 148, 134), (128, 98, 80)),
    Label.ROAD: ((84, 85, 90), (98, 97, 96), (72, 74, 80)),
    Label.PAVEMENT: ((172, 162, 150), (158, 157, 158), (186, 172, 150)),
    Label.TREE: ((66, 104, 46), (86, 116, 52), (54, 90, 58)),
    Label.CAR: ((158, 32, 38), (34, 62, 130), (206, 206, 212), (36, 38, 44)),
    Label.PERSON: ((58, 64, 124), (176, 92, 58), (60, 110, 110)),
    Label.POLE: ((112, 115, 120), (74, 78, 84), (60, 72, 66)),
    Label.SIGN: ((30, 84, 186), (204, 32, 40), (244, 198, 42)),
    Label.VOID: ((40, 42, 46), (120, 24, 30), (190, 192, 196)),
}
_VARIANTS: dict[Label, tuple[_Rgb, ...]] = {
    Label.SKY: ((238, 176, 132), (88, 118, 178), (240, 240, 242), (132, 136, 148)),
    Label.BUILDING: ((166, 58, 44), (238, 236, 230), (104, 146, 176), (74, 76, 84), (226, 178, 92), (120, 150, 116)),
    Label.ROAD: ((158, 108, 92), (182, 178, 168), (44, 46, 54), (124, 128, 100)),
    Label.PAVEMENT: ((182, 106, 84), (222, 216, 204), (104, 104, 112), (138, 152, 118)),
    Label.TREE: ((204, 148, 40), (172, 62, 38), (226, 172, 192), (118, 132, 92), (34, 56, 36)),
    Label.CAR: ((236, 236, 240), (24, 24, 28), (40, 110, 70), (226, 182, 40), (170, 30, 34), (70, 130, 190)),
    Label.PERSON: ((232, 230, 226), (30, 30, 34), (222, 60, 60), (236, 196, 50), (60, 140, 80), (150, 90, 160)),
    Label.POLE: ((176, 146, 60), (36, 84, 58), (212, 212, 214), (156, 48, 40)),
    Label.SIGN: ((236, 236, 236), (34, 130, 72), (204, 32, 40), (244, 198, 42), (120, 70, 40)),
    Label.VOID: ((40, 42, 46), (190, 192, 196)),
}
# Classes that come to look alike, and how strongly each is drawn towards the common look.
_GROUPS: tuple[dict[Label, float], ...] = (
    {Label.ROAD: 1.0, Label.PAVEMENT: 1.0},
    {Label.SKY: 1.0, Label.BUILDING: 1.0, Label.TREE: 1.0, Label.POLE: 1.0, Label.SIGN: 0.5},
    {Label.CAR: 1.0, Label.PERSON: 1.0},
    {Label.VOID: 0.0},
)
_PULL = 0.92  # what is left of a difference at indistinction 1 is 1 - _PULL
# (fine grain, coarse blotches, ruled lines): relative amplitudes of the texture.
_TEXTURE: dict[Label, tuple[float, float, float]] = {
    Label.SKY: (0.0, 0.0, 0.0),
    Label.BUILDING: (0.06, 0.07, 0.20),
    Label.ROAD: (0.10, 0.05, 0.0),
    Label.PAVEMENT: (0.06, 0.06, 0.26),
    Label.TREE: (0.36, 0.20, 0.0),
    Label.CAR: (0.02, 0.08, 0.0),
    Label.PERSON: (0.08, 0.16, 0.0),
    Label.POLE: (0.05, 0.08, 0.0),
    Label.SIGN: (0.02, 0.05, 0.0),
    Label.VOID: (0.02, 0.2, 0.0),
}
# Parts with a material of their own: its colour, and how much of it shows (the rest is the object's base colour).
_TINTS: dict[Part, tuple[_Rgb, float]] = {
    Part.ROOF: ((104, 62, 50), 0.75),
    Part.MARKING: ((226, 224, 216), 0.85),
    Part.KERB: ((206, 202, 194), 0.45),
    Part.CROWN_LIGHT: ((170, 190, 90), 0.28),
    Part.TRUNK: ((78, 62, 48), 0.9),
    Part.GLASS: ((44, 54, 64), 0.85),
    Part.TYRE: ((24, 24, 26), 0.92),
    Part.RED_LAMP: ((214, 32, 30), 0.9),
    Part.WHITE_LAMP: ((240, 236, 216), 0.9),
    Part.SKIN: ((206, 154, 124), 0.95),
    Part.HAIR: ((54, 40, 32), 0.92),
    Part.TROUSERS: ((44, 48, 62), 0.75),
    Part.SYMBOL: ((232, 232, 230), 0.8),
    Part.RIM: ((236, 236, 236), 0.9),
}


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Looks of every primitive; colours in [0, 255], everything float32."""

    colors: NDArray[np.float32]  # (primitives, 2, 3): the two zones of an object
    texture: NDArray[np.float32]  # (primitives, 3): fine, coarse, ruled
    sameness: NDArray[np.float32]  # (primitives,): 0 keeps a class's own details, 1 hides them
    sky: NDArray[np.float32]  # (3,) colour of the haze and of the clear sky


def mix_materials(
    canvas: SceneCanvas, rng: np.random.Generator, *, inconsistency: float, indistinction: float
) -> Materials:
    """Gives every primitive its look.

    Each instance has two zones. With inconsistency 0 both have the one look of their class; with 1 each has a look
    drawn from a wide set. Indistinction moves the looks of the classes of one group, variants included,
    to looks they share.
    The draws from ``rng`` do not depend on the knobs, so a scene changes smoothly with them.
    """
    labels = np.asarray(canvas.labels)
    usual = {label: _jittered(rng, looks[int(rng.integers(len(looks)))], 5.0) for label, looks in _USUAL.items()}
    pick = rng.random((len(labels), 2))
    jitter = rng.normal(0.0, 10.0, (len(labels), 2, 3))
    spread = inconsistency**0.8
    colors = np.zeros((len(labels), 2, 3))
    texture, sameness = np.zeros((len(labels), 3)), np.zeros(len(labels))
    for group in _GROUPS:
        shared = np.mean([usual[label] for label in group], axis=0)
        shared_variants = np.array([variant for label in group for variant in _VARIANTS[label]])
        shared_texture = np.mean([_TEXTURE[label] for label in group], axis=0)
        for label, pull in group.items():
            rows = np.flatnonzero(labels == label)
            own = _spread(usual[label], np.array(_VARIANTS[label]), pick[rows], jitter[rows], spread)
            common = _spread(shared, shared_variants, pick[rows], jitter[rows], spread)
            share = _PULL * indistinction * pull
            colors[rows] = (1 - share) * own + share * common
            texture[rows] = (1 - share) * np.array(_TEXTURE[label]) + share * shared_texture
            sameness[rows] = share
    sky = np.asarray(colors[0, 0], dtype=np.float32)
    instance = np.asarray(canvas.prim_instance)
    tinted = colors[instance]
    for row, part in enumerate(canvas.prim_part):
        if part in _TINTS:
            tint, strength = _TINTS[Part(part)]
            strength *= 1.0 - 0.75 * sameness[instance[row]]
            tinted[row] = (1 - strength) * tinted[row] + strength * np.array(tint)
    return Materials(
        colors=np.clip(tinted, 0, 255).astype(np.float32),
        texture=texture[instance].astype(np.float32),
        sameness=sameness[instance].astype(np.float32),
        sky=sky,
    )


def _jittered(rng: np.random.Generator, color: _Rgb, amount: float) -> NDArray[np.float64]:
    return np.asarray(color, dtype=np.float64) + rng.normal(0.0, amount) + rng.normal(0.0, 0.4 * amount, 3)


def _spread(
    usual: NDArray[np.float64],
    variants: NDArray[np.float64],
    pick: NDArray[np.float64],
    jitter: NDArray[np.float64],
    spread: float,
) -> NDArray[np.float64]:
    """Colours (instances, 2, 3) that lie the fraction ``spread`` of the way from the usual look to picked variants."""
    chosen = variants[(pick * len(variants)).astype(np.int64)] + jitter
    return np.asarray((1 - spread) * usual + spread * chosen, dtype=np.float64)
