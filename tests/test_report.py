"""The demo's report in a real browser that has no network: what is drawn, said, saved and printed."""

import csv
import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import polars as pl
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page
from pypdf import PdfReader

from rvqprobe import report
from rvqprobe.look import MIME
from rvqprobe.store import Layout

PHONEME = "figure[data-name='phoneme-by-rvq-layer']"


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(browser: Browser, complaints: list[str]) -> Iterator[Page]:
    """A page without a network, 1280 pixels wide; what it asks for or complains of goes to ``complaints``."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: complaints.append(request.url) if not re.match("file:|data:|blob:", request.url) else None,
    )
    yield page
    context.close()


def show(page: Page, path: Path) -> Page:
    page.goto(path.as_uri())
    page.wait_for_function("[...document.querySelectorAll('.canvas')].every((c) => c.querySelector('.main-svg'))")
    return page


@pytest.fixture
def index(page: Page, demo: Path) -> Page:
    return show(page, demo / "demo" / "index.html")


@pytest.fixture(scope="module")
def metrics(demo: Path) -> pl.DataFrame:
    return pl.read_parquet(Layout(demo / "results", "demo").metrics)


def drawn(notebook: Path) -> list[dict[str, Any]]:
    return [data[MIME] for _, data in report.figures(nbformat.read(notebook, 4))]


def points(figure: dict[str, Any]) -> int:
    """Points that a figure's lines mark, those of the legend aside."""
    lines = [trace for trace in figure["data"] if trace["type"] == "scatter" and "markers" in trace["mode"]]
    return sum(y is not None for line in lines for y in line["y"])


MARKS = """(canvas) => ({
  points: canvas.querySelectorAll('.scatterlayer .points path.point').length,
  heatmaps: canvas.querySelectorAll('.heatmaplayer image').length,
  bars: canvas.querySelectorAll('.barlayer .point path').length,
})"""


@pytest.mark.needs("chromium")
def test_every_page_draws_all_figures_and_asks_for_nothing(page: Page, demo: Path, complaints: list[str]) -> None:
    notebooks = sorted((demo / "demo").glob("*.ipynb"))
    assert len(notebooks) == 8
    for notebook in notebooks:
        show(page, notebook.with_name("index.html" if notebook.stem == "04_report" else f"{notebook.stem}.html"))
        figures, canvases = drawn(notebook), page.locator(".canvas").all()
        assert len(figures) == len(canvases) > 0
        for figure, canvas in zip(figures, canvases, strict=True):
            kinds = [trace["type"] for trace in figure["data"]]
            bars = sum(len(trace["x"]) for trace in figure["data"] if trace["type"] == "bar")
            marks = {"points": points(figure), "heatmaps": kinds.count("heatmap"), "bars": bars}
            assert (canvas.evaluate(MARKS) == marks and any(marks.values())) or figure["layout"]["title"][
                "text"
            ].startswith("Use")
    assert complaints == []


@pytest.mark.needs("chromium")
def test_hover_shows_the_value(index: Page, metrics: pl.DataFrame, complaints: list[str]) -> None:
    own = metrics.filter(codec="logmel_rvq", task="phoneme", metric="macro_f1", input="layer", lag_ms=0)
    both = own.filter(probe="linear").join(own.filter(probe="lookup"), on="layer")
    layer, value = both.sort((pl.col("value") - pl.col("value_right")).abs()).select("layer", "value").row(-1)
    canvas = index.locator(f"{PHONEME} .canvas")
    canvas.scroll_into_view_if_needed()
    x, y = canvas.evaluate(
        """(canvas, [layer, value]) => { const {xaxis, yaxis} = canvas._fullLayout, box = canvas.getBoundingClientRect();
        return [box.x + xaxis._offset + xaxis.d2p(layer), box.y + yaxis._offset + yaxis.d2p(value)]; }""",
        [layer, value],
    )
    index.mouse.move(x - 3, y - 3)
    index.mouse.move(x, y)
    hover = canvas.locator(".hoverlayer .hovertext")
    hover.first.wait_for()
    assert f"layer {layer}: {value:.4f}" in " ".join(hover.all_text_contents()) and complaints == []


def saved(page: Page, figure: str, kind: str) -> bytes:
    with page.expect_download() as download:
        page.locator(f"{figure} button[data-format='{kind}']").click()
    assert download.value.suggested_filename == f"phoneme-by-rvq-layer.{kind}"
    return Path(download.value.path()).read_bytes()


@pytest.mark.needs("chromium")
def test_csv_holds_the_numbers(index: Page, metrics: pl.DataFrame) -> None:
    rows = list(csv.DictReader(io.StringIO(saved(index, PHONEME, "csv").decode())))
    assert len(rows) == 2 * 2 * 3 * 8  # metrics, probes, codecs, layers
    names = {"macro-F1": "macro_f1", "accuracy": "accuracy"}
    for row in rows:
        theirs = metrics.filter(
            codec=row["codec"], task="phoneme", metric=names[row["panel"]], probe=row["look"], layer=int(row["layer"]),
            input="layer", lag_ms=0,
        )  # fmt: skip
        assert [theirs[name][0] for name in ("value", "low", "high", "chance")] == [
            float(row[name]) if row[name] else None for name in ("value", "low", "high", "chance")
        ]


@pytest.mark.needs("chromium")
def test_figures_are_saved_from_the_page_and_as_files(index: Page, demo: Path, complaints: list[str]) -> None:
    assert Image.open(io.BytesIO(saved(index, PHONEME, "png"))).width > 1500
    assert b"Phoneme by RVQ layer" in saved(index, PHONEME, "svg") and complaints == []
    names = {name for name, _ in report.figures(nbformat.read(demo / "demo" / "04_report.ipynb", 4))}
    files = list((demo / "demo" / "figures").iterdir())
    assert {file.name for file in files} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    for file in files:
        if file.suffix == ".png":
            with Image.open(file) as image:
                assert image.width == report.WIDTH * report.SCALE and len(image.convert("L").getcolors()) > 10
        else:
            assert file.read_text().startswith("<svg")


@pytest.mark.needs("chromium")
def test_code_is_folded_and_opens(index: Page) -> None:
    code = index.locator("details.code")
    assert code.count() == 16 and not any(block.is_visible() for block in index.locator(".input_area").all())
    code.nth(2).locator("summary").click()
    assert index.locator(".input_area").nth(2).is_visible() and "import polars" in code.nth(2).inner_text()
    index.get_by_role("button", name="Show all code").click()
    assert all(block.is_visible() for block in index.locator(".input_area").all())
    index.get_by_role("button", name="Hide all code").click()
    assert not any(block.is_visible() for block in index.locator(".input_area").all())


@pytest.mark.needs("chromium")
def test_contents_and_links_lead_somewhere(index: Page, demo: Path) -> None:
    sections = index.get_by_role("navigation", name="Contents").get_by_role("link").all()
    assert len(sections) == index.locator("h2").count() > 10
    for link in sections:
        target = index.locator(f"[id='{link.get_attribute('href')[1:]}']")
        assert target.inner_text().strip("¶") == link.inner_text() and target.evaluate("(e) => e.tagName") == "H2"
    pages = [
        link.get_attribute("href")
        for link in index.get_by_role("navigation", name="Notebooks").get_by_role("link").all()
    ]
    assert len(pages) == 7 and all((demo / "demo" / page).is_file() for page in pages)


def test_one_small_file_answers_first(demo: Path) -> None:
    path = demo / "demo" / "index.html"
    text = path.read_text()
    assert path.stat().st_size < 8e6 and text.count(report.plotly.offline.get_plotlyjs()) == 1
    assert not re.search(r"<(script|link|img|audio|iframe)\b[^>]*(src|href)=\"(?!data:)", text)
    assert "default-src 'none'; script-src 'sha256-" in text and "unsafe-eval" not in text
    order = [
        "Demo: RVQ layers",
        "How do phonemes",
        "The answer",
        "A linear probe reads the phoneme",
        'class="plot"',
        "Method, data",
        "Look for",
    ]
    places = [text.rindex(mark) if mark in order[:1] else text.index(mark, text.index("<main")) for mark in order[1:]]
    assert places == sorted(places)
    answer = text[text.index("A linear probe reads") : text.index("<table")]
    assert (
        len(re.findall("A linear probe reads", answer)) == 3
        and "<math" in text
        and "$$" not in text[text.index("<main") :]
    )


@pytest.mark.needs("chromium")
def test_each_figure_has_words_made_from_its_numbers(index: Page, metrics: pl.DataFrame) -> None:
    canvases = index.locator(".canvas[role=img]").all()
    assert len(canvases) == index.locator(".plot").count()
    for canvas in canvases:
        words = index.locator(f"[id='{canvas.get_attribute('aria-describedby')}']").text_content()
        assert canvas.get_attribute("aria-label") and re.search(r"\d", words) and len(words) > 40
    own = metrics.filter(codec="logmel_rvq", task="phoneme", metric="macro_f1", probe="linear", input="layer", lag_ms=0)
    first, *_, last = own.sort("layer")["value"]
    words = index.locator("#phoneme-by-rvq-layer-words").text_content()
    assert f"logmel_rvq from {first:.3f} at layer 1 to {last:.3f} at 8, highest {own['value'].max():.3f}" in words


@pytest.mark.needs("chromium")
def test_a_phone_scrolls_in_one_direction(browser: Browser, demo: Path) -> None:
    page = show(browser.new_page(viewport={"width": 390, "height": 844}), demo / "demo" / "index.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = page.locator(".canvas").evaluate_all("(all) => all.map((canvas) => canvas.getBoundingClientRect().right)")
    assert len(wide) == len(drawn(demo / "demo" / "04_report.ipynb")) and max(wide) <= 390
    panels = page.locator(f"{PHONEME} .canvas").evaluate(
        "({_fullLayout: {xaxis, xaxis2}}) => [xaxis, xaxis2].map((axis) => [axis._offset, axis._length])"
    )
    assert panels[0] == panels[1] and panels[0][1] > 250  # one above the other, wide enough
    page.close()


@pytest.mark.needs("chromium")
def test_paper_cuts_no_figure(browser: Browser, demo: Path, tmp_path: Path) -> None:
    page = show(browser.new_page(viewport={"width": 1280, "height": 900}), demo / "demo" / "index.html")
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    page.close()
    sheets = PdfReader(tmp_path / "report.pdf").pages
    width, height = sheets[0].mediabox.width, sheets[0].mediabox.height
    assert (round(width), round(height)) == (595, 842)  # A4
    texts = []
    for sheet in sheets:
        placed: list[tuple[str, float, float]] = []

        def visit(text: str, place: Any, matrix: Any, *_: Any, placed: list = placed) -> None:
            x = matrix[4] * place[0] + matrix[5] * place[2] + place[4]
            y = matrix[4] * place[1] + matrix[5] * place[3] + place[5]
            placed.append((text.strip(), x, y))

        sheet.extract_text(visitor_text=visit)
        assert all(0 < x < width and 0 < y < height for text, x, y in placed if text)
        texts.append(" ".join(text for text, *_ in placed))
    for figure in drawn(demo / "demo" / "04_report.ipynb"):
        title = figure["layout"]["title"]["text"]
        shown = [trace["name"] for trace in figure["data"] if trace.get("showlegend", False)]
        last = shown[-1:] or [figure["layout"]["xaxis"].get("title", {}).get("text", "")]
        assert any(title in text and last[0] in text[text.index(title) :] for text in texts), title
    assert "Show all code" not in " ".join(texts) and "import polars" not in " ".join(texts)


def test_without_a_browser_it_says_how_to_get_the_files(demo: Path, tmp_path: Path, monkeypatch) -> None:
    for missing in ("/nonexistent", "/bin/false"):
        monkeypatch.setenv("BROWSER_PATH", missing)
        notebook = nbformat.read(demo / "demo" / "04_report.ipynb", 4)
        with ThreadPoolExecutor(1) as thread:  # in this one the browser of other tests has an event loop
            said = thread.submit(report.save_figures, notebook, tmp_path / "figures").result()
        assert "No figure files" in said and "BROWSER_PATH" in said and not (tmp_path / "figures").exists()


def test_what_a_figure_holds_cannot_end_its_script(tmp_path: Path) -> None:
    layout = {
        "title": {"text": "a </script><b>"},
        "height": 300,
        "meta": {"words": "<i>1</i>", "csv": "x\n</script>\n"},
    }
    output = nbformat.v4.new_output("display_data", {MIME: {"data": [], "layout": layout}})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[output])])
    text = report.to_html(notebook, tmp_path / "page.html", "<title>").read_text()
    content = re.search(r"<script type=\"application/json\">(.*?)</script>", text, re.S)[1]
    assert (
        json.loads(content)["layout"] == layout
        and "<title>&lt;title&gt;</title>" in text
        and "&lt;i&gt;1&lt;/i&gt;</p>" in text
    )
