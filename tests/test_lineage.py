"""docs/lineage.md is made from the code, and must be made anew when the code changes."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_lineage_page_is_what_its_command_would_write() -> None:
    spec = importlib.util.spec_from_file_location("lineage", DOCS / "lineage.py")
    assert spec is not None
    assert spec.loader is not None
    lineage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lineage)
    written = (DOCS / "lineage.md").read_text(encoding="utf-8")
    assert written == lineage.page(), "docs/lineage.md is not current: run python docs/lineage.py"
