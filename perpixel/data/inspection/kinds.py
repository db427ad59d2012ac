"""Every kind of finding: its severity, why it matters and what mends it."""

from __future__ import annotations

from perpixel.data.inspection.kind import EXCLUDE, REREAD, Kind, Severity
from perpixel.data.inspection.mask_kinds import MASK_KINDS

__all__ = ["KINDS", "Kind", "Severity"]

KINDS: dict[str, Kind] = {
    # how the data lies on disk
    "layout": Kind(
        "error",
        "the layout is not as it should be",
        "Without its layout the data cannot be opened at all.",
        "Complete the data set, or give a list file with one image and its mask per line.",
    ),
    "link_loop": Kind(
        "error",
        "symbolic links that lead in a circle",
        "Such a link leads to no file, and programs that follow it never come back.",
        "Remove the links, or make them anew to the files that are meant; --fix leaves the pairs out.",
    ),
    "broken_link": Kind(
        "error",
        "symbolic links to files that are not there",
        "The name is there and the content is not: training stops when it comes to this image.",
        "Make the links anew, or bring the files back; --fix leaves the pairs out.",
    ),
    "outside_path": Kind(
        "error",
        "list entries that lead out of the data folder with '..'",
        "A list from elsewhere could name any file of this machine; copies of the folder would lose these files.",
        "Move the files below the folder of the list and write paths without '..'.",
    ),
    "bad_line": Kind(
        "error",
        "lines of a list that are no pair of files",
        "A line that is read wrongly pairs an image with a foreign mask, or loses both.",
        "Write one image and its mask per line, separated by a tab or a comma when names hold blanks.",
    ),
    "listed_missing": Kind(
        "error",
        "images that a list names and that are not there",
        "The split is not the one that was published or agreed on.",
        "Add the files, or remove the lines; --fix leaves them out.",
    ),
    "missing_mask": Kind(
        "error",
        "images without a mask",
        "There is nothing to learn from them and nothing to score them against.",
        "Add the masks, or move the images elsewhere; --fix leaves them out.",
    ),
    "duplicate_stem": Kind(
        "error",
        "several files with one name and different extensions",
        "It is open which file belongs to the mask (or image) of that name; tools choose differently, in silence.",
        "Rename or remove one of each; --fix leaves out all but the one that was paired.",
    ),
    "listed_twice": Kind(
        "error",
        "images listed more than once",
        "Twice in a split they count twice; in two splits the scores are of images that were trained on.",
        "Remove the repeated lines; --fix leaves the images out of all but the first split.",
    ),
    "class_files": Kind(
        "error",
        "masks of one file per class",
        "One file holds one class only, so that no single file is the mask of an image.",
        "Read them as class_folders:DATA; perpixel data convert class_folders:DATA --to folder --out DIR merges them.",
    ),
    "names_differ": Kind(
        "warning",
        "pairs whose names agree only without regard to upper case or the form of accents",
        "Other file systems tell these names apart, or do not: on another machine the pairs fall asunder.",
        "Rename the files so that image and mask have the same name, letter by letter.",
    ),
    "list_pairs_differ": Kind(
        "warning",
        "list lines that pair an image with a mask of another name",
        "Usually a line has slipped: every image below it then has the mask of its neighbour.",
        "Look at these lines; give every image the mask of its own name.",
    ),
    "spare_mask": Kind(
        "warning",
        "masks without an image",
        "They are left out. Often the image was lost or renamed, and with it a part of the data.",
        "Add the images, correct their names, or remove the masks.",
    ),
    "unlisted": Kind(
        "note",
        "files that the lists do not name",
        "They are neither trained on nor scored.",
        "Add lines for them if they belong to the split.",
    ),
    "name_control": Kind(
        "warning",
        "names with line breaks, tabs or other control characters",
        "List files, shells and most tools cut such names in pieces, and then miss the files or take others.",
        "Rename the files; letters, digits, '-', '_' and '.' are safe everywhere.",
    ),
    "name_blank": Kind(
        "note",
        "names with blanks",
        "Lists that separate columns by blanks cut such names in pieces.",
        "Separate the columns of lists by a tab or a comma, or rename the files.",
    ),
    "name_unicode": Kind(
        "note",
        "names with letters beyond ASCII",
        "Archives and file systems store accents in different ways, so that names may not match after a copy.",
        "Rename the files, or compare names after every copy of the data.",
    ),
    "nested_folder": Kind(
        "warning",
        "folders with images inside the folder of images or masks",
        "Only the folder itself is read: what lies deeper is neither trained on nor scored.",
        "Move the files up, or give a list file with one image and its mask per line.",
    ),
    "other_file": Kind(
        "note", "files that are no images", "They are left out.", "Nothing, when they are meant to be there."
    ),
    # whether files can be read
    "empty_file": Kind("error", "files of zero bytes", "There is nothing in them; a copy was cut short.", EXCLUDE),
    "damaged_file": Kind(
        "error",
        "files that are damaged or cut short",
        "Training stops at the first of them, maybe after hours; some tools go on with a half grey image.",
        EXCLUDE,
    ),
    "not_an_image": Kind("error", "files with an image's name and other content", "They cannot be decoded.", EXCLUDE),
    "unknown_format": Kind(
        "error",
        "images of a format that is not read",
        "JPEG, PNG, WEBP, TIFF and BMP are read; these files would be left out, and with them their masks.",
        "Save them as PNG.",
    ),
    "unreadable": Kind(
        "error", "files that cannot be opened", "The system refuses, usually for lack of permission.", EXCLUDE
    ),
    "too_large": Kind(
        "error",
        "files that say they hold more pixels than the limit",
        "Decoding them would take the memory of the machine; small files that claim so are an attack or damaged.",
        "Check where they come from. If they are meant to be that large, raise data.max_pixels; --fix leaves them out.",
    ),
    "several_pages": Kind(
        "error",
        "files of several pages",
        "Only the first page would be seen.",
        "Write every page to a file of its own, or use the format that reads pages (isbi2012:PATH).",
    ),
    "not_a_file": Kind(
        "error",
        "names of images that are folders, pipes or devices",
        "There is no picture behind them; a program that opens a pipe waits for ever.",
        "Replace them by the files that are meant; --fix leaves the pairs out.",
    ),
    "wrong_suffix": Kind(
        "note",
        "files whose extension names another format than their content",
        "perpixel reads the content; tools that trust the extension refuse these files.",
        "Rename them.",
    ),
    # how image and mask lie on each other
    "size_mismatch": Kind(
        "error",
        "masks of another size than their image",
        "Pixels of one do not lie on those of the other. Stretching labels invents classes or moves borders.",
        "Export the masks at the size of the images, by nearest neighbour; --fix leaves the pairs out.",
    ),
    "exif_image": Kind(
        "warning",
        "images that EXIF turns while their masks have no tag",
        "Viewers and many tools turn the image and not the mask, or neither; then nothing fits in silence.",
        "Save the images upright without the tag. Look at one pair in the HTML page: perpixel turns the mask alike.",
    ),
    "exif_mask": Kind(
        "error",
        "masks with an EXIF turn that their images do not have",
        "A tool that follows the tag turns the mask away from its image.",
        "Save the masks without the tag. " + REREAD,
    ),
    "exif_both": Kind(
        "note",
        "images and masks with the same EXIF turn",
        "perpixel turns both. A tool that turns only one of them trains on nonsense.",
        "Nothing for perpixel; saving both upright without tags is safe everywhere.",
    ),
    "exif_differs": Kind(
        "error",
        "images and masks with different EXIF turns",
        "After turning, the mask does not lie on its image.",
        "Save both upright without tags. " + REREAD,
    ),
    "turned_mask": Kind(
        "warning",
        "masks that seem to be upside down",
        "Their classes lie where all other masks have them when the rows are taken in reverse order.",
        "Look at them in the HTML page; export the masks anew.",
    ),
    **MASK_KINDS,
    # what images are like
    "leaked_image": Kind(
        "error",
        "identical images in different splits",
        "Scores on images that were trained on say nothing about others.",
        "Keep each in one split; --fix leaves it out of training.",
    ),
    "near_duplicate": Kind(
        "warning",
        "nearly identical images in different splits",
        "Re-encoded, resized or slightly changed copies of training images make validation scores too good.",
        "Look at the pairs in the HTML page; keep copies and neighbouring frames in one split.",
    ),
    "duplicate_image": Kind(
        "warning",
        "identical images within a split",
        "They count twice.",
        "Remove one of each; --fix leaves all but the first out.",
    ),
    "cut_image": Kind(
        "warning",
        "images whose lower part is one colour",
        "A transfer broke off, and some program filled the rest: the labels below have no picture.",
        EXCLUDE,
    ),
    "blank_image": Kind(
        "warning",
        "images of one colour",
        "Nothing can be seen on them, so the labels are noise: usually a failed export or a covered camera.",
        EXCLUDE,
    ),
    "odd_channels": Kind(
        "warning",
        "grey images among colour ones, or the other way round",
        "Grey becomes RGB by repetition: to the network these images look unlike all others.",
        "Check that they belong to this data.",
    ),
    "odd_mode": Kind(
        "note",
        "images with transparency or in print colours",
        "Transparency is dropped, and what lies behind it appears; CMYK becomes RGB without a colour profile.",
        "Save them as RGB from where they were made.",
    ),
    "mixed_depth": Kind(
        "warning",
        "images of 8 and of 16 bits",
        "They differ in their range of numbers by a factor of 256: normalised alike, some are nearly black.",
        "Save all images with the same number of bits per channel.",
    ),
    "odd_aspect": Kind(
        "warning",
        "images with an absurd ratio of their sides",
        "Windows and squares cut from them hold mostly padding; often a crop or a resize has failed.",
        EXCLUDE,
    ),
    "tiny_image": Kind(
        "warning",
        "images smaller than the network can use",
        "At the stride of the network hardly a point is left of them.",
        EXCLUDE,
    ),
}
"""Every kind, in the order in which findings of one severity are shown."""
