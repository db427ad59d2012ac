"""The command line: parses arguments and prints; what is printed was computed elsewhere.

Commands are registered by name and import what they need when they run, so that ``perpixel --help`` loads no torch.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from cyclopts import App

import perpixel
from perpixel.cli.failures import show_failure, show_warning

__all__ = ["COMMANDS", "create_app", "main"]

COMMANDS = {
    "demo": (
        "perpixel.cli.demo:demo",
        "Generates street scenes, trains a small DFN on them, scores it, predicts and writes a report.",
    ),
    "train": (
        "perpixel.cli.train:train",
        "Trains a network and writes a run folder with scores, models, predictions and a report.",
    ),
    "check": ("perpixel.cli.check:check", "Tries a run for a minute on the CPU and lists what would fail."),
    "evaluate": (
        "perpixel.cli.evaluate:evaluate",
        "Scores a model on a data set, or saved masks against their targets.",
    ),
    "predict": ("perpixel.cli.predict:predict", "Predicts images: writes a mask and an overlay for each."),
    "data": ("perpixel.cli.data:data", "Checks, counts and converts data sets."),
    "models": ("perpixel.cli.models:models", "Lists the networks, or one network's options with their defaults."),
    "recipes": (
        "perpixel.cli.recipes:recipes",
        "Lists the recipes, or one recipe's description and resolved configuration.",
    ),
    "config": ("perpixel.cli.config:config", "Shows what a run would use, and what a configuration may hold."),
    "import": (
        "perpixel.cli.import_checkpoint:import_checkpoint",
        "Turns a published checkpoint into a model that evaluate, predict and train --from take.",
    ),
    "verify": (
        "perpixel.cli.verify:verify",
        "Proves by numbers that networks and losses compute what the published code computes.",
    ),
    "prune": (
        "perpixel.cli.prune:prune",
        "Makes a narrower model of one: in every layer the kernels with the largest L1 norm stay.",
    ),
    "report": ("perpixel.cli.report:report", "Writes the report of a run again, or compares two runs."),
    "bench": ("perpixel.cli.bench:bench", "Runs a benchmark by name; without a name lists them."),
}
"""Where each command is, and its line in the list of commands, which is shown without importing any."""

_USAGE = {
    "demo": "[OPTIONS] [section.key=value ...]",
    "train": "(--recipe NAME | CONFIG.yaml | IMAGES MASKS | --data DATA | --resume RUN) [OPTIONS] "
    "[section.key=value ...]",
    "check": "(--recipe NAME | CONFIG.yaml | IMAGES MASKS | --data DATA) [OPTIONS] [section.key=value ...]",
    "evaluate": "(MODEL --data DATA | --predictions DIR --targets DIR --labels LABELS) [OPTIONS]",
    "predict": "MODEL INPUT ... --out DIR [OPTIONS]",
    "models": "[NAME] [OPTIONS]",
    "recipes": "[NAME] [OPTIONS]",
    "import": "FILE --out DIR [OPTIONS] [option=value ...]",
    "verify": "[PATH ...] [OPTIONS]",
    "prune": "MODEL --out DIR [OPTIONS]",
    "report": "RUN [RUN2]",
}


def main(tokens: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code.

    0 is success, 1 a failed verification or a bug, 2 a mistake in what was asked, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.

    Args:
        tokens: Arguments without the program's name; None takes those of the process.

    Raises:
        Exception: a bug in perpixel, under ``--debug`` alone.
    """
    given = list(sys.argv[1:] if tokens is None else tokens)
    debug = "--debug" in given
    arguments = [token for token in given if token != "--debug"]
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            code = create_app(arguments)(arguments, exit_on_error=False, print_error=False, verbose=False)
            sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:
            code = show_failure(error, debug=debug)
    return code if isinstance(code, int) else 0


def create_app(tokens: Sequence[str] = ()) -> App:
    """Returns the application with every command, none of them imported.

    Args:
        tokens: The command line; the command that it begins with describes itself by its own docstring.
    """
    app = App(
        name="perpixel",
        help="Semantic segmentation: the published networks exactly as published, trained, scored and delivered.",
        help_epilogue="Start with `perpixel demo`. With --debug anywhere, errors come with their traceback.",
        version=f"perpixel {perpixel.__version__}",
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for order, (name, (target, summary)) in enumerate(COMMANDS.items()):
        own = {} if name not in _USAGE else {"usage": f"Usage: perpixel {name} {_USAGE[name]}", "help_epilogue": ""}
        # cyclopts shows a given help in place of the docstring, so the command in question gets none.
        listed = None if name in tokens[:1] else summary
        if name == "data" and name in tokens[:1]:
            from perpixel.cli.data import create_data_app

            app.command(create_data_app(tokens[1:]))
            continue
        app.command(target, name=name, sort_key=order, help=listed, **own)
    return app
