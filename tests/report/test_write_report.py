"""The HTML file: what it shows, that it is well-formed, safe and self-contained, and what it says without files."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_run import make_run

from perpixel.errors import RunError
from perpixel.report import write_report

VOID = {"meta", "img", "br", "link", "input", "hr"}
FILES = ("config.yaml", "environment.json", "data.json", "metrics.jsonl", "metrics.json", "predictions/images.json")


class Page(HTMLParser):
    """Collects tags and visible text, and the first tag that is closed out of order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.wrong: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if self.open.pop() != tag and self.wrong is None:
            self.wrong = f"</{tag}> at line {self.getpos()[0]}"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[\s\u202f]+", " ", "".join(self.words))


def report(run: Path, tmp_path: Path, other: Path | None = None) -> str:
    return write_report(run, other, out=tmp_path / "out.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(finished_run, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def html_of_two(finished_run: Path, other_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(finished_run, tmp_path_factory.mktemp("two"), other_run)


def test_write_report_without_out_lies_in_the_run_folder(own_run: Path) -> None:
    path = write_report(own_run)
    assert path == own_run / "report.html"
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_write_report_finished_run_shows_scores_sections_and_decisions(finished_run: Path, html: str) -> None:
    page = Page(html)
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert page.wrong is None
    assert page.open == []
    for expected in (
        f"Mean IoU{100 * metrics['mean_iou']:.1f} %",
        f"fcn {100 * metrics['baseline']['mean_iou']:.1f} %",
        "this CPU is slower with bf16",
        "gradient norm 38 was clipped to 10 (step 400)",
        "Classes averaged",
        "21 min 40 s",
        "sha256:4bf1c0",
        "perpixel train --recipe dfn",
        "Typical (around the median)",
        "Class weights in the loss: median frequency",
    ):
        assert expected in page.text
    assert "not in the run folder" not in page.text


def test_write_report_pictures_are_nine_images_with_four_views_each(html: str) -> None:
    images = [attributes for tag, attributes in Page(html).tags if tag == "img"]
    assert len(images) == 36
    assert all(image["alt"] for image in images)
    assert {str(image["src"]).split(",")[0] for image in images} == {"data:image/jpeg;base64", "data:image/png;base64"}


def test_write_report_page_asks_for_nothing_outside(html_of_two: str) -> None:
    html = html_of_two
    references = [
        str(value)
        for _, attributes in Page(html).tags
        for key, value in attributes.items()
        if key in ("src", "href", "xlink:href", "srcset", "action", "data")
    ]
    assert references
    assert all(reference.startswith(("#", "data:image/")) for reference in references)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "://" not in html
    assert "@import" not in html
    assert "<script" not in html
    assert len(html) < 4_000_000


def test_write_report_class_named_script_is_escaped_everywhere(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "$\\frac$ & $x$", '"quoted"', *(f"class {i}" for i in range(8))]
    run = make_run(tmp_path / "<b>run", names=names, images=2)
    html = report(run, tmp_path)
    assert "<script" not in html
    assert "<b>" not in html
    assert html.count("&lt;script&gt;") >= 5
    text = Page(html).text
    assert "<script>alert(1)</script>" in text
    assert "$\\frac$ & $x$" in text


def test_write_report_repeated_gives_the_same_bytes(finished_run: Path, tmp_path: Path, html: str) -> None:
    assert report(finished_run, tmp_path) == html


def test_write_report_element_ids_are_unique(html_of_two: str) -> None:
    ids = [a["id"] for _, a in Page(html_of_two).tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_write_report_other_run_stands_beside_scores_classes_and_errors(other_run: Path, html_of_two: str) -> None:
    text = Page(html_of_two).text
    theirs = json.loads((other_run / "metrics.json").read_text())
    assert f"dfn-plain {100 * theirs['mean_iou']:.1f} %" in text
    assert "total, dfn-plain" in text
    assert "mean IoU, dfn-plain" in text
    assert "dfn-plain: near, %" in text
    assert "do not compare" not in text


def test_write_report_measures_have_their_sections(finished_run: Path, html: str) -> None:
    metrics = json.loads((finished_run / "metrics.json").read_text())
    text = Page(html).text
    low, high = metrics["intervals"]["mean_iou"]
    for expected in (
        f"{100 * low:.1f} to {100 * high:.1f} %",
        "95 % interval from 1,000 draws of the images with replacement",
        f"BF score {100 * metrics['boundary']['bf_score']:.1f} %",
        "Boundary IoU",
        "distance from a true border, pixels",
        "Medium1,024 to 9,215 pixels",
        "Expected calibration error 4.31 %",
        "the network is too sure by",
    ):
        assert expected in text
    assert "perpixel evaluate" not in text
    assert "Comparison" not in text


def test_write_report_run_without_measures_says_how_to_add_each(tmp_path: Path) -> None:
    run = make_run(tmp_path / "earlier", images=1, measured=False)
    page = Page(report(run, tmp_path))
    command = f"perpixel evaluate {run} --data {run}/scenes --split val"
    assert page.wrong is None
    for words in ("boundary scores", "recall by region size", "calibration"):
        assert f"metrics.json holds no {words}. This command adds what is missing" in page.text
    assert page.text.count(command) == 4  # the intervals too
    assert f"--json {run}/measures.json" in page.text


def test_write_report_two_runs_test_their_difference_and_show_what_changed(html_of_two: str) -> None:
    page = Page(html_of_two)
    assert "points of mean IoU" in page.text
    assert "Tested image by image, on the 12 images that both scored" in page.text
    assert "Where dfn-demo gains most" in page.text
    assert "dfn-demo scores higher than dfn-plain on" in page.text
    alts = [str(a["alt"]) for tag, a in page.tags if tag == "img"]
    shown = [alt.removeprefix("Difference of ") for alt in alts if alt.startswith("Difference of ")]
    assert len(shown) >= 3
    for name in shown:
        assert {f"{word} of {name}" for word in ("Truth", "dfn-demo", "dfn-plain")} <= set(alts)


def test_write_report_other_data_says_that_scores_do_not_compare(
    finished_run: Path, own_run: Path, tmp_path: Path
) -> None:
    data = json.loads((own_run / "data.json").read_text())
    (own_run / "data.json").write_text(json.dumps({**data, "fingerprint": "sha256:other"}))
    text = Page(report(finished_run, tmp_path, own_run)).text
    assert "The data of dfn-demo and small differ (fingerprints): their scores do not compare." in text
    assert "The scored number of images differs: 12 in dfn-demo, 2 in small." in text
    assert "dfn-demo and small scored different images: 10 only in dfn-demo (frame_0002" in text
    assert "Run facts" in text


@pytest.mark.parametrize("name", FILES)
def test_write_report_without_a_file_says_so_and_shows_the_rest(own_run: Path, tmp_path: Path, name: str) -> None:
    (own_run / name).unlink()
    page = Page(report(own_run, tmp_path))
    assert page.wrong is None
    assert f"{name} is not in the run folder" in page.text
    assert "Run facts" in page.text


def test_write_report_run_just_started_still_gets_a_page(tmp_path: Path) -> None:
    run = tmp_path / "young"
    run.mkdir()
    (run / "environment.json").write_text('{"device": "cpu", "end": null}')
    page = Page(report(run, tmp_path))
    assert page.wrong is None
    assert "This run has not finished" in page.text
    assert "metrics.json is not in the run folder" in page.text


def test_write_report_with_scores_but_before_the_end_is_written_is_no_unfinished_run(
    own_run: Path, tmp_path: Path
) -> None:
    (own_run / "environment.json").write_text('{"device": "cpu", "end": null}')
    assert "has not finished" not in Page(report(own_run, tmp_path)).text


def test_write_report_images_that_moved_are_named_instead(own_run: Path, tmp_path: Path) -> None:
    shutil.rmtree(own_run.parent / "small-data")
    page = Page(report(own_run, tmp_path))
    assert "The image is no longer at" in page.text
    assert "The target is no longer at" in page.text
    assert [a["alt"] for tag, a in page.tags if tag == "img"] == [
        f"Prediction of {name}" for name in re.findall(r"(frame_\d+)mean IoU", page.text)
    ]


def test_write_report_no_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="absent: no such run folder; give the folder that `perpixel train` wrote"):
        write_report(tmp_path / "absent")


def test_write_report_folder_without_run_raises(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "cat.png").touch()
    with pytest.raises(RunError, match=r"is no run folder: it holds cat\.png but none of metrics\.jsonl"):
        write_report(finished_run, tmp_path)


def test_write_report_place_that_cannot_be_written_raises(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot write the report to .*; give another file as out"):
        write_report(finished_run, out=tmp_path / "file" / "report.html")


def test_write_report_second_run_without_masks_says_why_nothing_is_compared(
    finished_run: Path, own_run: Path, tmp_path: Path
) -> None:
    shutil.rmtree(own_run / "predictions")
    page = Page(report(finished_run, tmp_path, own_run))
    assert page.wrong is None
    assert "small has no predictions/counts.npz, and its masks cannot be counted again" in page.text
    assert "points of mean IoU" not in page.text


def test_write_report_two_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, images=2) for name in ("slow", "fast")]
    for run in runs:
        config = (run / "config.yaml").read_text(encoding="utf-8")
        (run / "config.yaml").write_text(re.sub(r"(?m)^name: .*$", "name: same", config), encoding="utf-8")
    page = report(runs[0], tmp_path, runs[1])
    assert "<h2>same (slow) against same (fast)</h2>" in page
