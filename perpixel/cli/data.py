"""``perpixel data check``, ``stats`` and ``convert``: what is done with data before anything is trained on it.

The commands are named here and imported when they run, so that the list of them needs none.
"""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App

__all__ = ["DATA_COMMANDS", "create_data_app", "data"]

DATA_COMMANDS = {
    "check": (
        "perpixel.cli.data_check:data_check",
        "Finds what will go wrong with a data set, and how to repair it.",
        "DATA [OPTIONS]",
    ),
    "stats": (
        "perpixel.cli.data_stats:data_stats",
        "Counts classes, sizes and colours of a data set, and advises how to train on it.",
        "DATA [OPTIONS]",
    ),
    "convert": (
        "perpixel.cli.data_convert:data_convert",
        "Turns drawn labels or any data set into folders of images and masks, or into COCO's or labelme's JSON.",
        "DATA --to folder|coco|labelme --out DIR [OPTIONS]",
    ),
}
"""Where each command is, its line in the list of commands, and its arguments."""


def create_data_app(tokens: Sequence[str] = ()) -> App:
    """Returns ``perpixel data`` with its commands, none of them imported.

    Args:
        tokens: The command line after ``data``; the command that it begins with describes itself by its own docstring.
    """
    app = App(
        name="data",
        help="Checks, counts and converts data sets.",
        help_epilogue="DATA is [format:]path, such as camvid:/d, voc:/d or a folder with images/ and masks/.",
        result_action="return_value",
    )
    for order, (name, (target, summary, arguments)) in enumerate(DATA_COMMANDS.items()):
        app.command(
            target,
            name=name,
            sort_key=order,
            help=None if name in tokens[:1] else summary,
            usage=f"Usage: perpixel data {name} {arguments}",
            help_epilogue="",
        )
    return app


data = create_data_app()
