"""The report: its numbers against ones computed directly from the store, and what it does with bad news."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pyhess as ph
from pyhess import FileError, MissingDependencyError, StoreError
from pyhess.cli.app import app
from pyhess.sweep import Export, Store
from pyhess.sweep.report.markup import element, script_json
from pyhess.sweep.report.plots import MOST_BANDS

from .report_tools import Page, failed, make_store
from .synthetic import synthetic_store

pytest.importorskip("plotly", reason="plotly (pyhess[report]) is not installed")

Rows = list[dict[str, Any]]


def page_of(store: Path) -> Page:
    output = store.with_suffix(".html")
    assert ph.report(store, output) == output
    return Page(output.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Rows]:
    store = synthetic_store(tmp_path_factory.mktemp("report") / "run.db", 3000)
    with Store.open(store, readonly=True) as opened:
        return page_of(store), opened.rows()


def label_of(row: dict[str, Any]) -> str:
    axes = row["axes"]
    parts = (axes["activation"], axes["parametrization"], axes["region"], f"radius {axes['radius']:g}", row["kind"])
    return " · ".join(parts)


def curves(panel: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The traces of a panel that have a name, by it without the slope."""
    return {trace["name"].partition(" (")[0]: trace for trace in panel["data"] if "name" in trace}


def test_medians_are_those_of_the_cells(made: tuple[Page, Rows]) -> None:
    page, rows = made
    values: dict[tuple[str, int, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for end in ("lower", "upper"):
            if row["status"] == "done" and row[f"lam_{end}"] is not None:
                values[label_of(row), row["axes"]["depth"], end][row["axes"]["width"]].append(row[f"lam_{end}"])
    panels = {panel["label"]: panel for panel in page.figures["bracket-width"]}
    assert set(panels) == {label for label, _, _ in values} and len(panels) == 16
    for (label, depth, end), by_width in values.items():
        trace = curves(panels[label])[f"depth {depth}, {end}"]
        assert trace["x"] == sorted(by_width)
        expected = [statistics.median(by_width[width]) for width in sorted(by_width)]
        np.testing.assert_allclose(trace["y"], expected, rtol=1e-5)
    assert sum(len(curves(panel)) for panel in panels.values()) - sum(
        "some cells missing" in curves(p) for p in panels.values()
    ) == len(values)


def test_exponents_are_those_of_the_medians(made: tuple[Page, Rows]) -> None:
    from scipy.stats import linregress, t

    page, rows = made
    by_width: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done" and label_of(row) == "tanh · ntk · box · radius 0.5 · bracket" and row["axes"]["depth"] == 2:
            by_width[row["axes"]["width"]].append(row["lam_upper"])
    widths = sorted(by_width)
    fit = linregress(np.log(widths), np.log([statistics.median(by_width[width]) for width in widths]))
    wide = t.ppf(0.975, len(widths) - 2) * fit.stderr
    row = next(
        cells
        for cells in page.table("cells", "curve", "end")
        if cells[:3] == ["tanh · ntk · box · radius 0.5 · bracket", "depth 2", "upper"]
    )
    expected = [f"{fit.slope:.3f}", f"{fit.slope - wide:.3f} to {fit.slope + wide:.3f}", f"{fit.rvalue**2:.4f}", str(len(widths))]
    assert row[3:] == expected
    assert abs(fit.slope - 0.5) < 0.1  # what the store was made with


def test_counts_are_told_and_nothing_missing_is_averaged(made: tuple[Page, Rows]) -> None:
    page, rows = made
    tiles = dict(zip(("done", "failed", "crashed", "pending"), (2925, 30, 15, 30), strict=True))
    for name, count in tiles.items():
        assert f"{count:,}{name}" in page.text
    for panel in page.figures["bracket-width"]:
        mine = [row for row in rows if label_of(row) == panel["label"]]
        lost = {status: sum(row["status"] == status for row in mine) for status in ("failed", "crashed", "pending")}
        told = ", ".join(f"{count} {status}" for status, count in lost.items() if count)
        limited = sum(row["time_limited"] is True for row in mine)
        assert f"{len(mine) - sum(lost.values())} of {len(mine)} cells have a result; {told} are left out" in panel["caption"]
        assert f"the time limit ended {limited}" in panel["caption"]
        places = {(row["axes"]["width"], row["axes"]["depth"]) for row in mine if row["status"] != "done"}
        assert len(curves(panel)["some cells missing"]["x"]) == len(places)
        diamonds = sum(
            symbol == "diamond-open"
            for name, trace in curves(panel).items()
            if "lower" in name
            for symbol in trace["marker"]["symbol"]
        )
        assert diamonds == len({(r["axes"]["width"], r["axes"]["depth"]) for r in mine if r["time_limited"]})
    failures = page.table("status", "cells", "error")
    assert [row[:4] for row in failures] == [
        ["failed", "30", "NonFiniteError", "the Hessian overflowed"],
        ["crashed", "15", "WorkerDied", "its worker died 3 times"],
    ]


def test_audit_certificates_and_times_are_those_of_the_cells(made: tuple[Page, Rows]) -> None:
    page, rows = made
    pairs = [row for row in rows if row["status"] == "done" and row["lam_upper"] is not None]
    ratios = np.array([row["lam_upper"] / row["lam_lower"] for row in pairs])
    assert f"lam_lower ≤ lam_upper in all {len(pairs):,} cells with both ends" in page.text
    assert page.table("smallest")[0] == [f"{value:.4g}" for value in np.quantile(ratios, [0, 0.25, 0.5, 0.75, 0.95, 1])]
    assert sum(sum(bar["y"]) for bar in page.figures["ratio"][0]["data"]) == len(pairs)
    assert page.table("method", "tried")[1][:5] == ["centre", f"{len(pairs):,}", "0", "0", "1.2"]
    timed = [row for row in rows if row["status"] == "done"]
    free = [row["seconds"] / row["predicted_seconds"] for row in timed if not row["time_limited"]]
    told = dict(page.table("time", "value"))
    assert told["measured / predicted: 10 %, median, 90 %"] == ", ".join(f"{q:.3g}" for q in np.quantile(free, [0.1, 0.5, 0.9]))
    assert told["measured together, core hours"] == f"{sum(row['seconds'] for row in timed) / 3600.0:.4g}"


def test_the_table_to_download_is_the_export(made: tuple[Page, Rows]) -> None:
    page, rows = made
    assert len(page.csv) == len(rows) and "traceback" not in page.csv[0]
    for told, row in zip(page.csv, rows, strict=True):
        assert told["key"] == row["key"] and told["status"] == row["status"]
        assert told["lam_lower"] == ("" if row["lam_lower"] is None else repr(row["lam_lower"]))
        assert told["width"] == str(row["axes"]["width"]) and told["error"] == (row["error"] or "")
        assert (json.loads(told["certificate"]) if told["certificate"] else None) == row["certificate"]


def test_the_table_to_download_has_the_columns_of_the_export(tmp_path: Path) -> None:
    store = make_store(tmp_path / "run.db", [({"width": width}, {}) for width in (2, 4)])
    assert [*page_of(store).csv[0]] == [name for name in Export(store).table() if name != "traceback"]


def test_brackets_the_wrong_way_round_are_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "run.db", [({"seed": 11}, {}), ({"seed": 12}, {"lam_lower": 4.0}), ({"seed": 13}, failed())])
    page = page_of(store)
    assert "1 bracket of 2 with lam_lower > lam_upper: 000000000000 (seed 12)" in page.text


def test_infinite_and_zero_ends_are_counted_and_not_drawn(tmp_path: Path) -> None:
    inf = math.inf
    cells = [
        ({"width": 2, "seed": 11}, {"lam_upper": inf, "outcome": "undecided"}),
        ({"width": 2, "seed": 12}, {"lam_upper": 2.0}),
        ({"width": 2, "seed": 13}, {"lam_upper": 4.0}),
        ({"width": 4, "seed": 11}, {"lam_upper": inf, "lam_lower": inf, "outcome": "infinite"}),
        ({"width": 8, "seed": 11}, {"lam_lower": 0.0}),
    ]
    page = page_of(make_store(tmp_path / "run.db", cells))
    (panel,) = page.figures["bracket-width"]
    assert curves(panel)["upper"]["y"] == [4.0, None, 3.0]
    assert curves(panel)["lower"]["y"] == [1.5, None, 0.0]
    for told in ("2 upper ends infinite", "1 lower end infinite", "1 lower end zero"):
        assert told in panel["caption"]
    assert "left out: 1 with an infinite upper end, 1 with a lower end of zero" in page.figures["ratio"][0]["caption"]
    assert {row[0]: row[1] for row in page.table("outcome")} == {"bracketed": "3", "undecided": "1", "infinite": "1"}
    assert page.table("cells", "curve", "width")[1][3] == "∞"


def test_axes_that_go_together_make_one_curve(tmp_path: Path) -> None:
    """A radius that shrinks with the width, two data sets with their losses, one network of unequal layers."""
    cells = [
        ({"data": data, "loss": loss, "width": width, "radius": 1.0 / width, "seed": seed}, {"lam_lower": float(width + seed)})
        for data, loss in (("xor", "logistic"), ("rings", "cross_entropy"))
        for width in (2, 4, 8)
        for seed in (11, 12)
    ]
    page = page_of(make_store(tmp_path / "run.db", cells))
    panels = page.figures["bracket-width"]
    assert [panel["label"] for panel in panels] == ["xor · loss logistic", "rings · loss cross_entropy"]
    assert curves(panels[0])["lower"]["y"] == [13.5, 15.5, 19.5]
    assert "radius changes together with width" in panels[0]["caption"]

    cells = [({"width": ..., "hidden": hidden, "depth": 2}, {"lam_lower": 2.0}) for hidden in ("4-2", "8-4", "16-8")]
    page = page_of(make_store(tmp_path / "hidden.db", cells))
    assert curves(page.figures["bracket-units"][0])["lower"]["x"] == [6.0, 12.0, 24.0]


def test_settings_are_kept_apart(tmp_path: Path) -> None:
    cells = [({"width": width}, {"lam_lower": 1.0 * width}) for width in (2, 4)]
    store = make_store(tmp_path / "run.db", cells, options={"starts": 8})
    other = make_store(
        tmp_path / "other.db", [({"width": width}, {"lam_lower": 3.0 * width}) for width in (2, 4)], options={"starts": 64}
    )
    with Store.open(store) as target, Store.open(other, readonly=True) as source:
        names = [name for (_, name, *_) in source.connection.execute("PRAGMA table_info(cells)")]
        with target.transaction():
            for row in source.connection.execute(f"SELECT {', '.join(names)} FROM cells"):
                marked = ["f" + value[1:] if name == "key" else value for name, value in zip(names, row, strict=True)]
                target.connection.execute(
                    f"INSERT INTO cells ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", marked
                )
    panels = page_of(store).figures["bracket-width"]
    assert {panel["label"]: curves(panel)["lower"]["y"] for panel in panels} == {"starts 8": [2, 4], "starts 64": [6, 12]}


def test_many_curves_have_no_bands_and_many_points_are_thinned(tmp_path: Path) -> None:
    cells = [({"width": w, "depth": d}, {"lam_lower": 1.0 + w}) for w in range(1, 451) for d in (1, 2)]
    page = page_of(make_store(tmp_path / "run.db", cells))
    (panel,) = page.figures["bracket-width"]
    assert len(curves(panel)["depth 1, lower"]["x"]) == 200
    assert "200 of 450 points of depth 1 are drawn" in panel["caption"]
    cells = [({"width": w, "depth": d}, {"lam_lower": 1.0 * d * w}) for w in (2, 4) for d in range(1, 31)]
    page = page_of(make_store(tmp_path / "deep.db", cells))
    (panel,) = page.figures["bracket-width"]
    assert "12 of 30 curves are drawn" in panel["caption"] and "bands" not in panel["caption"]
    assert not any(trace.get("fill") for trace in panel["data"]) and MOST_BANDS < 12


@pytest.mark.parametrize("case", ["empty", "pending", "failed", "search", "one"])
def test_there_is_a_page_whatever_the_store_holds(tmp_path: Path, case: str) -> None:
    cells = {
        "empty": [],
        "pending": [({"width": 2}, None), ({"width": 4}, None)],
        "failed": [({"width": 2}, failed()), ({"width": 4}, failed(status="crashed"))],
        "search": [({"width": w}, {"lam_upper": None, "outcome": None, "method": None, "certificate": None}) for w in (2, 4)],
        "one": [({}, {})],
    }[case]
    page = page_of(make_store(tmp_path / "run.db", cells))
    assert f"{len(cells)} cell" in page.text
    if case in ("empty", "one"):
        assert "No numeric axis varies" in page.text
    if case == "failed":
        assert page.table("status", "cells", "error")[0][:4] == ["failed", "1", "NumericalError", "it broke"]
    if case == "search":
        assert "No cell has both ends" in page.text and curves(page.figures["bracket-width"][0])["lower"]["y"] == [1.5, 1.5]


HOSTILE = [
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "\"><svg/onload='alert(3)'>", "a & b &lt; <!-- c",
    "%{x} $x^$ {y}", "\u2028line\ud800\x00",
]  # fmt: skip


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    stored = [name.replace("\ud800", "") for name in HOSTILE]  # half a character fits into an axis, which is JSON, only
    both = list(zip(HOSTILE, stored, strict=True))
    cells = [({"data": name, "width": width}, {"method": told, "host": told}) for name, told in both for width in (2, 4)]
    cells += [({"data": name, "width": 8}, failed(error=f"failed: {told}", error_type=told)) for name, told in both]
    provenance = {"host": HOSTILE[1], "argv": HOSTILE[:5], "engine": HOSTILE[0], "git": {"commit": HOSTILE[1], "dirty": True}}
    store = make_store(tmp_path / "<b>&'run.db", cells, name="".join(HOSTILE[:5]), provenance=provenance)
    page = page_of(store)
    plain = page_of(make_store(tmp_path / "plain.db", [({"data": "d", "width": w}, {}) for w in (2, 4)]))
    assert set(page.tags) - {"details", "summary"} <= set(plain.tags)
    assert page.tags.count("script") == plain.tags.count("script") == 4
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    messages = [row[3] for row in page.table("status", "cells", "error")]
    assert messages[:5] == [f"failed: {name}" for name in HOSTILE[:5]]
    labels = [panel["label"] for panel in page.figures["bracket-width"]]
    assert labels[:5] == HOSTILE[:5]
    assert [row["data"] for row in page.csv][:10:2] == HOSTILE[:5]
    # What Plotly is given is text for it, too: no tag, no entity of ours.
    for panels in page.figures.values():
        for trace in (trace for panel in panels for trace in panel["data"]):
            for text in (trace.get("name", ""), *trace.get("text", ())):
                assert "<" not in text.replace("<br>", "") and ">" not in text.replace("<br>", "")
    for script in ("</script", "<!--", "<script"):
        assert script not in page.scripts["report-data"].lower()


def test_the_page_forbids_itself_the_network(made: tuple[Page, Rows]) -> None:
    page, _ = made
    policy = next(value for tag, name, value in page.attributes if (tag, name) == ("meta", "content") and "default-src" in value)
    assert "default-src 'none'" in policy and "unsafe-inline'; img" in policy and "http" not in policy
    assert not [value for _, name, value in page.attributes if name in ("src", "href") and not value.startswith("#")]
    assert sum(text.startswith("/**\n* plotly.js") for text in page.scripts.values()) == 1


def test_the_same_store_gives_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib (pyhess[report]) is not installed")
    cells = [
        ({"width": width, "seed": seed, "data": "a$b_c"}, {"lam_lower": width / seed}) for width in (2, 4) for seed in (11, 12)
    ]
    store = make_store(tmp_path / "run.db", cells)
    for name in "ab":
        ph.report(store, tmp_path / f"{name}.html", figures=tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [f"{name}.{suffix}" for name in ("bracket_width", "ratio", "timing") for suffix in ("pdf", "svg")]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert b"<svg" in (tmp_path / "a" / "ratio.svg").read_bytes() and (tmp_path / "a" / "ratio.pdf").read_bytes()[:5] == b"%PDF-"
    assert "matplotlib.pyplot" not in sys.modules or "pyhess" not in repr(sys.modules["matplotlib.pyplot"])


@pytest.mark.parametrize("name", ["plotly.offline", "matplotlib"])
def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    store = make_store(tmp_path / "run.db", [({}, {})])
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingDependencyError, match=rf"{name.partition('.')[0]}, which is not installed; pip install 'pyhess\[report\]'"
    ):
        ph.report(store, tmp_path / "run.html", figures=tmp_path / "figures")
    assert (tmp_path / "run.html").exists() == (name == "matplotlib")


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no store"):
        ph.report(tmp_path / "none.db", tmp_path / "run.html")
    (tmp_path / "other.db").write_text("something else " * 99)
    with pytest.raises(StoreError, match="no store of pyhess"):
        ph.report(tmp_path / "other.db", tmp_path / "run.html")
    store = make_store(tmp_path / "run.db", [({}, {})])
    with pytest.raises(FileError, match="folder does not exist"):
        ph.report(store, tmp_path / "nowhere" / "run.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be made"):
        ph.report(store, tmp_path / "run.html", figures=tmp_path / "file" / "figures")


def test_command(tmp_path: Path) -> None:
    store = make_store(tmp_path / "run.db", [({"width": width}, {}) for width in (2, 4)])
    output = tmp_path / "run.html"
    result = CliRunner().invoke(app, ["sweep", "report", str(store), "-o", str(output)])
    assert result.exit_code == 0 and f"written to {output}" in result.stderr and result.stdout == ""
    assert "bracket-width" in Page(output.read_text(encoding="utf-8")).figures
    result = CliRunner().invoke(app, ["sweep", "report", str(tmp_path / "none.db"), "-o", str(output)])
    assert result.exit_code == 3 and "there is no store" in result.stderr


def test_markup_escapes_attributes_and_json() -> None:
    assert element("a", "<", title="\"'<>&") == '<a title="&quot;&#x27;&lt;&gt;&amp;">&lt;</a>'
    hostile = "</script><!-- & \u2028"
    text = script_json({hostile: hostile})
    assert json.loads(text) == {hostile: hostile} and not set(text) & set("<>&\u2028")
