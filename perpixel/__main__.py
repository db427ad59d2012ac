"""``python -m perpixel``, which is also what torchrun starts."""

from __future__ import annotations

import sys

from perpixel.cli import main
from perpixel.cli.processes import exit_code

if __name__ == "__main__":
    sys.exit(exit_code(main()))
