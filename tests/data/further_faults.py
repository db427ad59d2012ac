"""More ways to break one file, found in the same way; they join those of `broken_data`."""

from __future__ import annotations

import io

import numpy as np
from broken_data import KIND, Plant, Spot, ids_of, save
from PIL import Image


def through_jpeg(at: Spot) -> set[str]:
    buffer = io.BytesIO()
    Image.open(at.mask).save(buffer, "JPEG", quality=85)
    Image.open(buffer).convert("L").save(at.mask)
    return at.shown(at.mask)


def jpeg_beside_list(at: Spot) -> set[str]:
    file = at.mask.with_suffix(".jpg")
    Image.open(at.mask).save(file)
    at.mask.unlink()
    return at.shown(file)


def quarter_turn(at: Spot) -> set[str]:
    Image.open(at.mask).transpose(Image.Transpose.ROTATE_90).save(at.mask)
    return at.shown(at.image, at.mask)


def single_foreign_pixel(at: Spot) -> set[str]:
    ids = ids_of(at.mask).copy()
    ids[3, 3] = 12
    save(ids, at.mask)
    return at.shown(at.mask)


def sixteen_bit_scaled(at: Spot) -> set[str]:
    save(ids_of(at.mask).astype(np.uint16) * 257, at.mask)
    return at.shown(at.mask)


def flipped_bits(at: Spot) -> set[str]:
    content = bytearray(at.image.read_bytes())
    content[len(content) // 2] ^= 0xFF
    at.image.write_bytes(bytes(content))
    return at.shown(at.image)


def several_pages(at: Spot) -> set[str]:
    image = Image.open(at.image)
    image.save(at.image, format="TIFF", save_all=True, append_images=[image])
    return at.shown(at.image)


def unknown_format(at: Spot) -> set[str]:
    file = at.image.with_suffix(".gif")
    Image.open(at.image).save(file)
    at.image.unlink()
    return at.shown(file)


def mirrored_copy(at: Spot) -> set[str]:
    Image.open(at.other_image).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(at.image)
    return at.shown(at.image, at.other_image)


def cropped_copy(at: Spot) -> set[str]:
    image = Image.open(at.other_image)
    width, height = image.size
    inner = (width // 50, height // 50, width - width // 50, height - height // 50)
    image.crop(inner).resize(image.size).save(at.image)
    return at.shown(at.image, at.other_image)


def duplicate_image(at: Spot) -> set[str]:
    copies = [path.with_name("zz_copy.png") for path in (at.image, at.mask)]
    for path, copy in zip((at.image, at.mask), copies, strict=True):
        copy.write_bytes(path.read_bytes())
    lines = at.root / f"{at.image.parent.name}.txt"
    lines.write_text(lines.read_text() + " ".join(str(copy.relative_to(at.root)) for copy in copies) + "\n")
    return at.shown(at.image, copies[0])


def odd_mode(at: Spot) -> set[str]:
    Image.open(at.image).convert("RGBA").save(at.image)
    return at.shown(at.image)


def other_letters(at: Spot) -> set[str]:
    file = at.mask.with_name(at.mask.name.upper())
    at.mask.rename(file)
    return at.shown(file)


KIND |= {
    through_jpeg: "smeared_mask",
    jpeg_beside_list: "jpeg_mask",
    quarter_turn: "size_mismatch",
    single_foreign_pixel: "unknown_ids",
    sixteen_bit_scaled: "scaled_mask",
    flipped_bits: "damaged_file",
    mirrored_copy: "near_duplicate",
    cropped_copy: "near_duplicate",
    other_letters: "names_differ",
}

FURTHER: tuple[Plant, ...] = (
    through_jpeg, jpeg_beside_list, quarter_turn, single_foreign_pixel, sixteen_bit_scaled, flipped_bits, several_pages,
    unknown_format, mirrored_copy, cropped_copy, duplicate_image, odd_mode, other_letters,
)  # fmt: skip
