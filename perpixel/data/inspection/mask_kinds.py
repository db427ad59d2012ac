"""The kinds of findings that concern the content of masks."""

from __future__ import annotations

from perpixel.data.inspection.kind import REREAD, Kind

__all__ = ["MASK_KINDS"]

MASK_KINDS: dict[str, Kind] = {
    # how masks are encoded
    "jpeg_mask": Kind(
        "error",
        "masks saved as JPEG",
        "JPEG changes the ids near every border: classes appear that nobody drew.",
        "Save the masks as PNG from where they were drawn; --fix leaves the pairs out.",
    ),
    "smeared_mask": Kind(
        "error",
        "masks with ids that were mixed between neighbours",
        "Smooth resizing, antialiasing or JPEG made new numbers along the borders: they are classes that nobody drew.",
        "Make the masks anew, resized by nearest neighbour and never saved as JPEG; --fix leaves the pairs out.",
    ),
    "picture_mask": Kind(
        "error",
        "masks that are pictures",
        "Hundreds of values, changing at almost every pixel, are intensities and no classes.",
        "Put the label map in place of the picture; --fix leaves the pairs out.",
    ),
    "color_mask": Kind(
        "error",
        "masks that hold colours instead of ids",
        "Read as ids, colours are nonsense; read in grey, several classes can become one.",
        "Train with data.mask_encoding=colors and a label file with names and colors; --fix writes one.",
    ),
    "mixed_encoding": Kind(
        "error",
        "masks encoded otherwise than the rest of the folder",
        "One rule reads all masks: those that need another one give wrong classes or an error.",
        REREAD,
    ),
    "binary_mask": Kind(
        "error",
        "masks of 0 and 255 among masks of class ids",
        "255 means 'ignored' to most tools, so the foreground of these masks is silently left out, or is unknown.",
        "Give the foreground the id of its class; --fix leaves the pairs out, since which class it is cannot be known.",
    ),
    "foreground_ignored": Kind(
        "error",
        "masks of 0 and 255 with a label space that ignores 255",
        "All the foreground is ignored: the network learns that everything is background.",
        "Leave --labels away (0 and 255 then become two classes), or use the label file that --fix writes.",
    ),
    "scaled_mask": Kind(
        "error",
        "masks whose ids were multiplied to be visible",
        "Ids like 0, 20, 40… lie outside the label space, or inside it and mean another class.",
        REREAD,
    ),
    "off_by_one": Kind(
        "error",
        "masks whose ids are shifted by one",
        "Every class is taken for its neighbour in the list.",
        REREAD,
    ),
    "instance_mask": Kind(
        "error",
        "masks of instance numbers",
        "Numbers like 26001 count objects; the class is only a part of them.",
        "Give the folder of class ids (such as *_labelIds.png). " + REREAD,
    ),
    "alpha_mask": Kind(
        "error",
        "masks whose labels seem to lie in the transparency",
        "Transparency is ignored on reading, so what remains is one class.",
        "Save the masks without transparency, one id per pixel. " + REREAD,
    ),
    "unknown_ids": Kind(
        "error",
        "masks with ids outside the label space",
        "On a GPU such an id ends training with an unreadable error; elsewhere it is read from foreign memory.",
        "Correct the masks, or give a label file that maps or ignores the ids (--labels); --fix leaves the pairs out.",
    ),
    "many_ids": Kind(
        "error",
        "no consecutive class ids",
        "Which class a number means, and whether all were seen, cannot be told from the masks.",
        "Give --labels with a known name or a label file; --fix writes one where there are no more than 64 ids.",
    ),
    "ids_from_one": Kind(
        "warning",
        "ids that begin with 1",
        "Read as they are, class 0 has no pixel, and the network keeps an output that it never sees.",
        "Give a label file with stored: [1, 2, …]; --fix writes one.",
    ),
    "alpha_unused": Kind("note", "masks with transparency", "It is ignored.", "Nothing, when it means nothing."),
    "deep_mask": Kind(
        "note", "masks of 16 bits with small ids", "They are read as they are; some tools cut off one byte.", "Nothing."
    ),
    "palette_shuffled": Kind(
        "error",
        "palette masks whose colours are those of other classes",
        "A tool sorted its colours anew: the picture looks right, and every id means another class.",
        "Save the masks with the ids of the label space. " + REREAD,
    ),
    "palette_differs": Kind(
        "warning",
        "palette masks with another palette than the rest",
        "The colours that people see differ: when a tool sorted its colours anew, the same id is another class.",
        "Compare one of them with its image. The ids are read, whatever the palette says.",
    ),
    "mixed_modes": Kind(
        "note",
        "masks stored in another way with the same kind of ids",
        "Grey, palette and RGB files with equal channels hold the same ids for perpixel, but not for every tool.",
        "Nothing for perpixel; save all masks in one mode for other tools.",
    ),
    "encoding": Kind("note", "how the masks are encoded", "This is what was understood, and why.", "Nothing."),
    # what masks hold
    "all_ignored": Kind(
        "warning",
        "masks that ignore every pixel",
        "Nothing is learned or scored, and a batch of only such images has no loss.",
        "Label them or leave them out; --fix leaves them out.",
    ),
    "empty_mask": Kind(
        "warning",
        "masks of one class only",
        "Usually the export failed: everything is background, and the network learns to miss what is there.",
        "Look at them in the HTML page; leave out those that were never labelled.",
    ),
    "stray_mask": Kind(
        "warning",
        "masks that do not follow their image",
        "Their borders lie where the image hardly changes, unlike all others: another image's mask, moved or turned.",
        "Look at them in the HTML page, and find the right mask of each.",
    ),
    "speckled_mask": Kind(
        "warning",
        "masks full of single pixels",
        "Nobody draws them: noise, dithering or a lossy file has scattered ids, and borders are learned as noise.",
        "Make the masks anew, or remove what is smaller than a few pixels.",
    ),
    "same_mask": Kind(
        "warning",
        "masks that are identical to those of other images",
        "Two different images do not have the same objects to the pixel: one has the mask of the other.",
        "Find the right mask of each.",
    ),
    "class_missing": Kind(
        "error",
        "classes that a split does not hold",
        "A class without training pixels cannot be learned; one without validation pixels is not scored.",
        "Add such images or divide anew; or take the classes out of the label file, or set "
        "data.allow_absent_classes=true.",
    ),
    "class_imbalance": Kind(
        "note",
        "classes with few pixels",
        "The loss is a mean over pixels, in which rare classes hardly count.",
        "Weigh classes (perpixel data stats DATA proposes how), or draw windows around rare ones: data.class_crop=0.5.",
    ),
    "thin_objects": Kind(
        "note",
        "regions that vanish at the stride of the network",
        "A region between the points of the score map leaves no label there: the network sees it as its surroundings.",
        "Train at a larger size, with a smaller output stride, or with a decoder that returns to fine resolution.",
    ),
}
"""Part of `perpixel.data.inspection.kinds.KINDS`, in its order."""
