"""The HTML, LaTeX and CSV of an evaluation, from a results object made by hand."""

import base64
import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moda_cli.evaluate import charts, report
from moda_cli.evaluate.bootstrap import mean_over_clips
from moda_cli.evaluate.columns import COLUMNS
from moda_cli.evaluate.tables import clips_csv, latex, with_interval

ESTIMATE = {"low": 0.5, "high": 0.7, "clips": 2, "std": 0.1}


def results(folder: Path, clips: int = 2) -> dict[str, Any]:
    rows = []
    for k in range(clips):
        generated, real = folder / f"c&{k}.mp4", folder / "cache" / f"r {k}.mp4"
        real.parent.mkdir(exist_ok=True)
        generated.write_bytes(b"0" * 100)
        real.write_bytes(b"1" * (report.EMBED_CLIP + 1))
        values = {"f_sim": 0.6 + k / 10, "offset": 2 * k, "tracked": 1.0}
        rows.append(
            {
                "id": f"c&{k}", "generated": str(generated), "reference": str(real),
                "reference_prepared": None, "portrait": None, "frames": 60, "first_frame": 50 * k,
                "values": {"generated": values, "reference": {"f_sim": 0.9}},
                "over_time": {"f_sim": [0.7, None, 0.6]}, "left_out": [],
            }
        )  # fmt: skip
    skipped = {"id": "<b>bad</b>", "metric": None, "side": "generated", "reason": "30 & odd"}
    return {
        "label": "ours <2>", "split": "hdtf-50", "dataset": "hdtf", "device": "cpu",
        "generation": {"model": "mini", "steps": 10},
        "versions": {"moda": "0"}, "protocol": {"frames": "512"},
        "weights": {"arcface": {"source": "a/b", "revision": "", "sha256": "00"}},
        "metrics": {"sync": {"status": "weights missing", "reason": "run `moda download eval`"}},
        "summary": {
            "generated": {
                "f_sim": {"value": 0.65, **ESTIMATE}, "offset": {"value": 1.0, **ESTIMATE},
                "tracked": {"value": 1.0, **ESTIMATE},
                "fvd": {"value": 201.26, "samples": 12, **ESTIMATE},
            },
            "reference": {"f_sim": {"value": 0.9, **ESTIMATE}},
        },
        "clips": rows, "left_out": [skipped], "notes": ["short <a>"],
    }  # fmt: skip


class Checker(HTMLParser):
    """Every element that is opened is closed in order; nothing is fetched from elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.sources += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path) -> None:
    data = results(tmp_path)
    page = report.html(data, tmp_path)
    checked = Checker(page)
    assert not re.search(r"https?://", page)
    players = [source for source in checked.sources if not source.startswith("#")]
    embedded, linked = players[0], players[1]
    assert players[3] == "cache/r%201.mp4#t=2"  # where the window of the real clip begins
    assert base64.b64decode(embedded.removeprefix("data:video/mp4;base64,")) == b"0" * 100
    assert linked == "cache/r%200.mp4"  # too large to embed
    assert checked.counts["video"] == 4
    assert checked.counts["figure"] == 4  # F-SIM, tracked, offsets, F-SIM over time
    assert "ours &lt;2&gt;" in page
    assert "<b>bad</b>" not in page
    assert "&lt;b&gt;bad&lt;/b&gt;" in page
    assert "<code>moda download eval</code>" in page
    assert "174.6" in page  # MoDA's published FVD
    assert "201.3" in page


def test_a_page_with_many_clips_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "EMBED_ALL", 250)
    checked = Checker(report.html(results(tmp_path, clips=4), tmp_path))
    sources = [source for source in checked.sources if not source.startswith("#")]
    assert [s.startswith("data:") for s in sources[::2]] == [True, True, False, False]
    assert sources[4] == "c%262.mp4"


def test_the_worst_clips_are_played_first_whole_and_with_their_sound(tmp_path: Path) -> None:
    data = results(tmp_path, clips=3)
    for clip, f_sim in zip(data["clips"], (0.5, 0.2, 0.9), strict=True):
        clip["values"]["generated"]["f_sim"] = f_sim
    del data["clips"][2]["values"]["generated"]["f_sim"]
    page = report.html(data, tmp_path)
    assert re.findall(r'<article id="(clip-\d)"', page) == ["clip-1", "clip-0", "clip-2"]
    assert page.index("<article") < page.index("<h2>Results</h2>")
    assert '<option value="f_sim" data-better="high">F-SIM</option>' in page
    assert not re.search(r"<video[^>]*muted|object-fit|aspect-ratio", page)
    rows = page[page.index('class="sortable"') :]
    assert re.findall(r'<th><a href="#(clip-\d)">', rows) == ["clip-1", "clip-0", "clip-2"]


def test_a_dot_leads_to_its_clip(tmp_path: Path) -> None:
    page = report.html(results(tmp_path), tmp_path)
    dots = re.findall(r'<a href="#([\w-]+)"><circle class="dot ours"[^>]*><title>([^<]*)', page)
    assert ("clip-1", "c&amp;1: 0.7") in dots
    for place, _ in dots:
        assert page.count(f'id="{place}"') == 1


def test_equal_reasons_stand_in_one_line(tmp_path: Path) -> None:
    data = results(tmp_path)
    rows = [{**data["left_out"][0], "id": name} for name in "xyz"]
    other = {**rows[0], "id": "w", "reason": "too short"}
    data["left_out"] = [rows[0], other, *rows[1:]]
    data["metrics"]["fvd"] = data["metrics"]["sync"]
    page = report.html(data, tmp_path)
    shown = page[page.index("<h2>Left out</h2>") :].split("</table>")[0]
    assert shown.count("<tr>") == 3  # of the head, and of two reasons
    assert "x, y, z" in shown
    assert "<b>sync, fvd</b>: weights missing" in page


def test_latex_escapes_and_sets_off_what_was_measured(tmp_path: Path) -> None:
    text = latex({**results(tmp_path), "label": "ours_100%"})
    lines = text.splitlines()
    assert r"ours\_100\% & 201.3 {\scriptsize [0.5, 0.7]} & 0.650" in lines[-3]
    assert lines[-5] == r"\midrule"
    assert r"MoDA (paper) & 174.6 & 0.927 \\" in lines
    assert all(line.count("&") == 2 for line in lines if line.endswith(r"\\"))


def test_negative_numbers_have_a_minus_and_zero_none(tmp_path: Path) -> None:
    cell = {"value": -0.04, "low": -0.1234, "high": 0.0, "clips": 2, "std": None}
    lag, drift = (
        next(column for column in COLUMNS if column.key == key)
        for key in ("lip_lag", "sharpness_drift")
    )
    assert with_interval(lag, cell) == "0.0 [-0.1, 0.0]"
    data = results(tmp_path)
    data["summary"]["generated"] = {"sharpness_drift": cell}
    data["summary"]["reference"] = {}
    assert drift.digits == 3
    assert r"$-$0.040 {\scriptsize [$-$0.123, 0.000]} \\" in latex(data)


def one_clip(folder: Path) -> dict[str, Any]:
    """Results of one clip: its intervals are points."""
    data = results(folder, clips=1)
    for summary in data["summary"].values():
        for cell in summary.values():
            cell |= {"low": cell["value"], "high": cell["value"], "clips": 1, "std": None}
    return data


def test_one_clip_has_no_interval(tmp_path: Path) -> None:
    data = one_clip(tmp_path)
    page = report.html(data, tmp_path)
    Checker(page)
    assert "<b>0.650</b></td>" in page
    assert "0.650 to" not in page
    assert '<path class="interval' not in page
    assert '<path class="interval' in report.html(results(tmp_path), tmp_path)
    assert r"201.3 & 0.650 \\" in latex(data)
    f_sim = next(column for column in COLUMNS if column.key == "f_sim")
    assert with_interval(f_sim, data["summary"]["generated"]["f_sim"]) == "0.650"
    assert with_interval(f_sim, {"value": 0.65, **ESTIMATE}) == "0.650 [0.500, 0.700]"
    alone = mean_over_clips(np.array([0.65]), 10, 0)
    assert (alone.low, alone.high, alone.std) == (alone.value, alone.value, None)


def test_latex_without_the_papers_metrics_has_the_others(tmp_path: Path) -> None:
    data = results(tmp_path)
    lip_sync = {"value": 0.5, **ESTIMATE}
    data["summary"] = {"generated": {"lip_sync": lip_sync, "offset": lip_sync}, "reference": {}}
    lines = latex(data).splitlines()
    assert r"\begin{tabular}{lr}" in lines
    assert r"Measure & ours <2> \\" in lines
    assert r"Lip sync $\uparrow$ & 0.500 {\scriptsize [0.500, 0.700]} \\" in lines
    data["summary"]["reference"] = {"lip_sync": lip_sync}
    assert any(line.startswith("Offset & ") and "--" in line for line in latex(data).splitlines())


def test_csv_has_a_line_per_clip_and_side(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(clips_csv(results(tmp_path)))))
    assert [(row["id"], row["side"]) for row in rows] == [
        ("c&0", "generated"), ("c&0", "reference"), ("c&1", "generated"), ("c&1", "reference"),
        ("<b>bad</b>", "generated"),
    ]  # fmt: skip
    assert float(rows[2]["f_sim"]) == pytest.approx(0.7)
    assert rows[1]["offset"] == ""
    assert rows[-1]["left_out"] == "30 & odd"


@given(low=st.floats(-1e3, 1e3), span=st.just(0.0) | st.floats(1e-4, 1e6))
def test_ticks_enclose_the_values_and_are_few(low: float, span: float) -> None:
    marks = charts.ticks(low, low + span)
    slack = 1e-6 * max(abs(low), span)
    assert marks[0] <= low + slack
    assert marks[-1] >= low + span - slack
    assert 2 <= len(marks) <= 8
    assert len({charts.spelled(mark, marks[1] - marks[0]) for mark in marks}) == len(marks)


def test_equal_values_can_be_drawn() -> None:
    dots = [charts.Dot(1.0, name, name) for name in "ab"]
    drawn = charts.strips([("a", dots, 1.0, (1.0, 1.0))], "ones")
    assert "nan" not in drawn
    assert drawn.count('class="dot') == 2
    assert "nan" not in charts.lines([[(0.5, 0.0)]], [(0.5, 0.0)], "seconds", "zero")
