"""Sphinx configuration of perpixel's documentation."""

import perpixel

project = "perpixel"
author = "the perpixel authors"
release = perpixel.__version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "perpixel"
myst_heading_anchors = 2
myst_enable_extensions = ["colon_fence"]
