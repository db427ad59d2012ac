"""A small data set in CamVid's layout, and many ways to break one file of it, each with what should be found."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

HEIGHT, WIDTH = 72, 96
ORIENTATION = 0x0112
CAMVID_COLORS = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 0),
)  # fmt: skip


@dataclass(frozen=True)
class Spot:
    """One pair that is to be broken, and one of the other split."""

    root: Path
    image: Path
    mask: Path
    other_image: Path
    other_mask: Path

    def shown(self, *paths: Path) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in paths}


def write_camvid(root: Path, *, train: int = 30, val: int = 14) -> Path:
    """Layers of classes as in a street, objects in front, and an image of its own for each."""
    for offset, (split, count) in enumerate((("train", train), ("val", val))):
        lines = []
        for index in range(count):
            name = f"{split}_{index:03}.png"
            for folder in (split, f"{split}annot"):
                (root / folder).mkdir(parents=True, exist_ok=True)
            mask = street(np.random.default_rng(1000 * offset + index))
            Image.fromarray(photo(mask, 1000 * offset + index)).save(root / split / name)
            Image.fromarray(mask).save(root / f"{split}annot" / name)
            lines.append(f"/SegNet/CamVid/{split}/{name} /SegNet/CamVid/{split}annot/{name}\n")
        (root / f"{split}.txt").write_text("".join(lines))
    return root


def street(rng: np.random.Generator) -> NDArray[np.uint8]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for top, label in ((14, 5), (24, 1), (40, 4), (46, 3)):
        wave = (2 * np.sin(np.arange(WIDTH) / 9 + rng.uniform(0, 6))).astype(int) + top + rng.integers(-2, 3)
        mask[np.arange(HEIGHT)[:, None] >= wave] = label
    for label, (row, high, wide) in {
        2: (10, 34, 3), 6: (14, 8, 8), 7: (32, 8, 18), 8: (42, 12, 20), 9: (36, 16, 5), 10: (44, 12, 8),
        11: (62, 6, 10),
    }.items():  # fmt: skip
        top, left = row + rng.integers(-2, 3), rng.integers(2, WIDTH - wide - 2)
        mask[top : top + high, left : left + wide] = label
    for label in range(12):  # none is hidden altogether
        mask[4 + 5 * label : 8 + 5 * label, 1:4] = mask[4 + 5 * label, 0] if label in mask else label
    return mask


def photo(mask: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Smooth light that differs from image to image, with a tint by class."""
    rng = np.random.default_rng(seed + 77)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT), 2)
    return (0.8 * np.asarray(coarse) + 4.0 * mask[..., None] + rng.integers(0, 6, (*mask.shape, 3))).astype(np.uint8)


def ids_of(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


def save(values: NDArray[np.generic], path: Path) -> None:
    Image.fromarray(values).save(path, format="PNG")


Plant = Callable[[Spot], set[str]]


def missing_mask(at: Spot) -> set[str]:
    at.mask.unlink()
    return at.shown(at.image)


def spare_mask(at: Spot) -> set[str]:
    at.image.unlink()
    return at.shown(at.mask)


def damaged_file(at: Spot) -> set[str]:
    at.image.write_bytes(at.image.read_bytes()[:-900])
    return at.shown(at.image)


def empty_file(at: Spot) -> set[str]:
    at.mask.write_bytes(b"")
    return at.shown(at.mask)


def not_an_image(at: Spot) -> set[str]:
    at.image.write_text("<html>404: not found</html>")
    return at.shown(at.image)


def too_large(at: Spot) -> set[str]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    at.image.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return at.shown(at.image)


def size_mismatch(at: Spot) -> set[str]:
    mask = Image.open(at.mask)
    mask.resize((mask.width // 2, mask.height // 2), 0).save(at.mask)
    return at.shown(at.image, at.mask)


def _tagged(path: Path, orientation: int) -> None:
    image = Image.open(path)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.save(path, exif=exif)


def exif_image(at: Spot) -> set[str]:
    _tagged(at.image, 6)
    return at.shown(at.image, at.mask)


def exif_mask(at: Spot) -> set[str]:
    _tagged(at.mask, 3)
    return at.shown(at.mask)


def exif_both(at: Spot) -> set[str]:
    _tagged(at.image, 8)
    _tagged(at.mask, 8)
    return at.shown(at.image, at.mask)


def exif_differs(at: Spot) -> set[str]:
    _tagged(at.image, 6)
    _tagged(at.mask, 8)
    return at.shown(at.image, at.mask)


def unknown_ids(at: Spot) -> set[str]:
    ids = ids_of(at.mask).copy()
    ids[20:30, 20:30] = 37
    save(ids, at.mask)
    return at.shown(at.mask)


def jpeg_mask(at: Spot) -> set[str]:
    Image.open(at.mask).save(at.mask, format="JPEG", quality=90)
    return at.shown(at.mask)


def smeared_mask(at: Spot) -> set[str]:
    mask = Image.open(at.mask)
    mask.resize((mask.width // 2, mask.height // 2), 0).resize(mask.size, 2).save(at.mask)
    return at.shown(at.mask)


def mixed_encoding(at: Spot) -> set[str]:
    save(np.array(CAMVID_COLORS, np.uint8)[ids_of(at.mask)], at.mask)
    return at.shown(at.mask)


def binary_mask(at: Spot) -> set[str]:
    save(np.where(ids_of(at.mask) == 3, 255, 0).astype(np.uint8), at.mask)
    return at.shown(at.mask)


def scaled_mask(at: Spot) -> set[str]:
    save(ids_of(at.mask) * np.uint8(20), at.mask)
    return at.shown(at.mask)


def stretched_mask(at: Spot) -> set[str]:
    save(np.round(ids_of(at.mask) * (255 / 11)).astype(np.uint8), at.mask)
    return at.shown(at.mask)


def off_by_one(at: Spot) -> set[str]:
    save(ids_of(at.mask) + np.uint8(1), at.mask)
    return at.shown(at.mask)


def off_by_one_within(at: Spot) -> set[str]:
    ids = ids_of(at.mask)
    save(np.where(ids == 11, 11, np.minimum(ids + 1, 11)).astype(np.uint8), at.mask)
    return at.shown(at.mask)


def off_by_one_below(at: Spot) -> set[str]:
    save(ids_of(at.mask) - np.uint8(1), at.mask)
    return at.shown(at.mask)


def deep_mask(at: Spot) -> set[str]:
    save(ids_of(at.mask).astype(np.uint16), at.mask)
    return at.shown(at.mask)


def instance_mask(at: Spot) -> set[str]:
    ids = ids_of(at.mask).astype(np.uint16)
    save(np.where(ids == 8, 8001, np.where(ids == 9, 9003, ids)).astype(np.uint16), at.mask)
    return at.shown(at.mask)


def alpha_mask(at: Spot) -> set[str]:
    ids = ids_of(at.mask)
    save(np.dstack([np.zeros((*ids.shape, 3), np.uint8), ids]), at.mask)
    return at.shown(at.mask)


def picture_mask(at: Spot) -> set[str]:
    Image.open(at.image).convert("L").save(at.mask)
    return at.shown(at.mask)


def palette_mask(at: Spot) -> set[str]:
    mask = Image.fromarray(ids_of(at.mask))
    mask.putpalette([value for color in CAMVID_COLORS for value in color])
    mask.save(at.mask)
    return at.shown(at.mask)


def all_ignored(at: Spot) -> set[str]:
    save(np.full_like(ids_of(at.mask), 11), at.mask)
    return at.shown(at.mask)


def empty_mask(at: Spot) -> set[str]:
    save(np.zeros_like(ids_of(at.mask)), at.mask)
    return at.shown(at.mask)


def same_mask(at: Spot) -> set[str]:
    at.mask.write_bytes(at.other_mask.read_bytes())
    return at.shown(at.mask, at.other_mask)


def turned_mask(at: Spot) -> set[str]:
    save(np.ascontiguousarray(ids_of(at.mask)[::-1]), at.mask)
    return at.shown(at.mask)


def leaked_image(at: Spot) -> set[str]:
    at.image.write_bytes(at.other_image.read_bytes())
    return at.shown(at.image, at.other_image)


def near_duplicate(at: Spot) -> set[str]:
    image = Image.open(at.other_image).filter(ImageFilter.GaussianBlur(0.8)).point(lambda value: value * 0.9 + 10)
    image.save(at.image)
    return at.shown(at.image, at.other_image)


def odd_channels(at: Spot) -> set[str]:
    Image.open(at.image).convert("L").save(at.image)
    return at.shown(at.image)


def grey_as_rgb(at: Spot) -> set[str]:
    Image.open(at.image).convert("L").convert("RGB").save(at.image)
    return at.shown(at.image)


def mixed_depth(at: Spot) -> set[str]:
    save(np.asarray(Image.open(at.image).convert("L")).astype(np.uint16) * 257, at.image)
    return at.shown(at.image)


def blank_image(at: Spot) -> set[str]:
    save(np.zeros_like(np.asarray(Image.open(at.image))), at.image)
    return at.shown(at.image)


def odd_aspect(at: Spot) -> set[str]:
    for path in (at.image, at.mask):
        Image.open(path).crop((0, 40, 320, 60)).resize((640, 40), 0).save(path)
    return at.shown(at.image)


def tiny_image(at: Spot) -> set[str]:
    for path in (at.image, at.mask):
        Image.open(path).resize((16, 12), 0).save(path)
    return at.shown(at.image)


def broken_link(at: Spot) -> set[str]:
    at.image.unlink()
    at.image.symlink_to(at.root / "gone.png")
    return at.shown(at.image)


def link_loop(at: Spot) -> set[str]:
    at.mask.unlink()
    at.mask.symlink_to(at.mask.name)
    return at.shown(at.mask)


def duplicate_stem(at: Spot) -> set[str]:
    twin = at.image.with_suffix(".bmp")
    Image.open(at.image).convert("RGB").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(twin)
    return at.shown(at.image, twin)


def wrong_suffix(at: Spot) -> set[str]:
    Image.open(at.image).save(at.image, format="JPEG", quality=95)
    return at.shown(at.image)


def other_file(at: Spot) -> set[str]:
    file = at.image.parent / "Thumbs.db"
    file.write_bytes(b"\0\1\2")
    return at.shown(file)


def _renamed(at: Spot, name: str) -> set[str]:
    """Renames both files, and their line of the list."""
    files = at.image.with_name(name), at.mask.with_name(name)
    at.image.rename(files[0])
    at.mask.rename(files[1])
    lines = at.root / f"{at.image.parent.name}.txt"
    lines.write_text(lines.read_text().replace(at.image.name, name))
    return at.shown(*files)


def name_blank(at: Spot) -> set[str]:
    return _renamed(at, f"{at.image.stem} copy.png")


def name_unicode(at: Spot) -> set[str]:
    return _renamed(at, f"{at.image.stem}_straße.png")


def name_control(at: Spot) -> set[str]:
    return _renamed(at, f"{at.image.stem}\nx.png")


def listed_twice(at: Spot) -> set[str]:
    lines = at.root / f"{at.image.parent.name}.txt"
    lines.write_text(lines.read_text() + next(x for x in lines.read_text().splitlines(True) if at.image.name in x))
    return at.shown(at.image)


KIND = {
    stretched_mask: "scaled_mask",
    off_by_one_within: "off_by_one",
    off_by_one_below: "off_by_one",
    palette_mask: "mixed_modes",
    grey_as_rgb: "odd_channels",
}
"""The kind that a plant is found as, where it is not its own name."""

TWENTY: tuple[Plant, ...] = (
    missing_mask, spare_mask, damaged_file, empty_file, not_an_image, too_large, size_mismatch, exif_image, unknown_ids,
    jpeg_mask, smeared_mask, mixed_encoding, binary_mask, scaled_mask, off_by_one, all_ignored, same_mask,
    near_duplicate, odd_channels, name_blank,
)  # fmt: skip
OTHERS: tuple[Plant, ...] = (
    exif_mask, exif_both, exif_differs, stretched_mask, off_by_one_within, off_by_one_below, deep_mask, instance_mask,
    alpha_mask, picture_mask, palette_mask, empty_mask, turned_mask, leaked_image, grey_as_rgb, mixed_depth,
    blank_image, odd_aspect, tiny_image, broken_link, link_loop, duplicate_stem, wrong_suffix, other_file, name_unicode,
    name_control, listed_twice,
)  # fmt: skip


def kind_of(plant: Plant) -> str:
    return KIND.get(plant, plant.__name__)


def plant_all(root: Path, plants: tuple[Plant, ...], *, start: int = 0) -> dict[str, set[str]]:
    """Breaks one training pair after the other; the n-th plant has the n-th pair, and a validation pair beside it."""
    images = sorted((root / "train").iterdir())
    others = sorted((root / "val").iterdir())
    expected: dict[str, set[str]] = {}
    step = max(1, (len(images) - start) // len(plants))
    for number, plant in enumerate(plants):
        image, other = images[start + step * number], others[number % len(others)]
        spot = Spot(root, image, root / "trainannot" / image.name, other, root / "valannot" / other.name)
        expected.setdefault(kind_of(plant), set()).update(plant(spot))
    return expected
