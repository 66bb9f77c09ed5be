"""Each notebook through papermill on real speech, one after another."""

import re
from pathlib import Path

import nbformat
import polars as pl
import pytest

from conftest import MINI, ROOT
from rvqprobe import estimate, params, report, study
from rvqprobe.measures import TASK_METRICS
from rvqprobe.store import Layout, read_arrays

pytestmark = pytest.mark.needs("data")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny_rvq.yaml").write_text(
        "module: rvqprobe.codecs.logmel_rvq\nlayers: 4\ncodebook_size: 256\nmels: 40\n"
    )
    return folder


@pytest.fixture(scope="module")
def values(workspace: Path) -> dict:
    given = {
        "results_dir": str(workspace),
        "max_utterances": 100,
        "codecs": [str(workspace / "tiny_rvq.yaml")],
        "workers": 2,
    }
    return params.load_study("librispeech-mini", given)


@pytest.fixture(scope="module")
def layout(workspace: Path) -> Layout:
    return Layout(workspace, "librispeech-mini")


def printed(notebook: Path) -> str:
    """What an executed notebook printed."""
    cells = nbformat.read(notebook, 4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.fixture(scope="module")
def split_notebook(workspace: Path, values: dict) -> Path:
    return study.execute("01_split", None, values, workspace / "reports", "again")


@pytest.fixture(scope="module")
def encode_notebook(workspace: Path, values: dict, split_notebook: Path) -> Path:
    return study.execute("02_encode", values["codecs"][0], values, workspace / "reports", "again")


@pytest.fixture(scope="module")
def probe_notebook(workspace: Path, values: dict, encode_notebook: Path) -> Path:
    return study.execute("03_probe", values["codecs"][0], values, workspace / "reports", "again")


@pytest.fixture(scope="module")
def report_notebook(workspace: Path, values: dict, probe_notebook: Path) -> Path:
    return study.execute("04_report", None, values, workspace / "reports", "again")


def test_01_split(split_notebook: Path, layout: Layout) -> None:
    utterances = pl.read_parquet(layout.split)
    assert utterances.group_by("speaker").len()["len"].to_list() == [20] * 5
    assert utterances.filter(part="eval").group_by("speaker").len()["len"].to_list() == [2] * 5
    assert "567 utterances of 24 speakers found, 2.00 h; 100 chosen." in printed(split_notebook)
    assert "40 phoneme classes" in printed(split_notebook)


def test_02_encode(encode_notebook: Path, layout: Layout) -> None:
    frame = pl.read_parquet(layout.tokens("tiny_rvq") / "tokens-*.parquet")
    utterances = pl.read_parquet(layout.split)
    assert frame.height == int((utterances["seconds"] * 50).ceil().sum())
    assert 0.97 < frame["phone"].count() / frame.height <= 1 and 0.3 < frame["f0_hz"].count() / frame.height < 0.6
    assert frame["f0_hz"].min() > 60 and frame["f0_hz"].max() < 400
    assert f"{frame.height:,} tokens" in printed(
        encode_notebook
    ) and "4 layers of 256 codes in 40 dimensions" in printed(encode_notebook)


def test_pitch_of_men_and_women(encode_notebook: Path, layout: Layout) -> None:
    lines = (MINI / "LibriSpeech" / "SPEAKERS.TXT").read_text().splitlines()
    sex = {line.split("|")[0].strip(): line.split("|")[1].strip() for line in lines if not line.startswith(";")}
    frame = pl.read_parquet(layout.tokens("tiny_rvq") / "tokens-*.parquet")
    medians = dict(frame.group_by("speaker").agg(pl.col("f0_hz").median()).iter_rows())
    women, men = ([f0 for speaker, f0 in medians.items() if sex[speaker] == which] for which in "FM")
    assert len(women) + len(men) == 5 and women and men and min(women) > max(men)


def test_03_probe(probe_notebook: Path, layout: Layout) -> None:
    metrics = pl.read_parquet(layout.codec_metrics("tiny_rvq"))
    assert metrics.filter(metric="selectivity").height == 4 * 3 and metrics.filter(probe="bound").height == 4 * 3
    for task, names in TASK_METRICS.items():
        for kind in ("linear", "lookup"):
            own = metrics.filter(task=task, probe=kind, input="layer", lag_ms=0).filter(pl.col("metric").is_in(names))
            assert own.height == 4 * 2 and own.select((pl.col("low") <= pl.col("high")).all()).item()
    own = metrics.filter(input="layer", lag_ms=0)
    phoneme = dict(own.filter(task="phoneme", metric="macro_f1", probe="linear").select("layer", "value").iter_rows())
    assert phoneme[1] > 4 * 0.025 and phoneme[1] > 2 * phoneme[4]
    accuracy = metrics.filter(task="phoneme", metric="accuracy", probe="lookup", layer=1)
    assert accuracy["value"][0] > accuracy["chance"][0] + 0.05
    pitch = dict(own.filter(task="pitch", metric="r2", probe="linear").select("layer", "value").iter_rows())
    assert pitch[1] > 0.3 and pitch[1] > pitch[4] + 0.2
    leading = metrics.filter(input="components", metric="macro_f1", task="phoneme").sort("layer")["value"].to_list()
    assert leading == pytest.approx([phoneme[layer] for layer in (1, 2, 3, 4)], abs=0.002)  # 40 dimensions of 40
    utterance = own.filter(metric="utterance_accuracy", layer=1)["value"][0]
    assert utterance > own.filter(task="speaker", metric="accuracy", probe="linear", layer=1)["value"][0]
    lags = dict(
        metrics.filter(task="phoneme", layer=1, metric="macro_f1", probe="linear", input="layer")
        .select("lag_ms", "value")
        .iter_rows()
    )
    assert (
        sorted(lags) == [-80, -60, -40, -20, 0, 20, 40, 60, 80] and abs(max(lags, key=lags.get)) <= 20
    )  # centred frames
    usable = own.filter(metric="v_information", task="phoneme").sort("layer")["value"].to_list()
    shared = own.filter(metric="mi", task="phoneme").sort("layer")["value"].to_list()
    assert 0.5 < usable[0] < shared[0] < 8 and shared[0] > 2 * shared[3]
    recalls = pl.read_parquet(layout.recalls("tiny_rvq"))
    assert set(recalls["level"]) == {"phone", "broad class"} and recalls.filter(level="broad class").height == 4 * 7
    saved = read_arrays(layout.probe("tiny_rvq", 2, "phoneme"))
    assert saved["coef"].shape == (40, 40) and saved["converged"] and len(saved["classes"]) == 40
    assert "All 40 iterative probes converged." in printed(probe_notebook)


def test_04_report(report_notebook: Path, workspace: Path, layout: Layout) -> None:
    metrics = pl.read_parquet(layout.metrics)
    assert metrics.equals(pl.read_parquet(layout.codec_metrics("tiny_rvq")))
    page = report.to_html(nbformat.read(report_notebook, 4), workspace / "page.html", "test").read_text()
    own = metrics.filter(task="phoneme", metric="macro_f1", probe="linear", input="layer", lag_ms=0)
    best = own.sort("value").row(-1, named=True)
    interval = f"95 % interval {best['low']:.3f} to {best['high']:.3f}, chance {best['chance']:.3f}"
    assert f"macro-F1 is highest in layer {best['layer']} ({best['value']:.3f}, {interval})" in page
    assert "none of its 5 predictions is tested here" in page
    for value in metrics.filter(pl.col("value") > 0, lag_ms=0)["value"]:
        assert f"{value:,.3f}" in page


def test_the_estimate_is_within_a_factor_of_two(values: dict, report_notebook: Path) -> None:
    facts, minutes = estimate.estimate(values)
    names = ["01_split", "02_encode-tiny_rvq", "03_probe-tiny_rvq", "04_report"]
    took = [nbformat.read(report_notebook.with_name(f"{name}.ipynb"), 4).metadata.papermill.duration for name in names]
    assert minutes["stage"].to_list() == [
        "01_split",
        "02_encode, tiny_rvq",
        "03_probe, tiny_rvq",
        "04_report",
        "in all",
    ]
    assert sum(took) / 2 < 60 * minutes["minutes"][-1] < 2 * (sum(took) + 16)  # and four pages and the figures' files
    said = dict(facts.iter_rows())
    assert re.fullmatch(r"0\.3\d h, 100 utterances, 5 speakers", said["audio"]) and said["speech"] == "here"
    tokens = pl.scan_parquet(
        Layout(params.path(values["results_dir"]), "librispeech-mini").tokens("tiny_rvq") / "*.parquet"
    )
    assert float(said["tokens"].split()[0]) == pytest.approx(tokens.select(pl.len()).collect().item() / 1e6, abs=0.01)


def test_notebooks_are_thin() -> None:
    for notebook in params.NOTEBOOKS:
        cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", 4).cells
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        assert 6 <= len(code) <= 15 and max(map(len, "\n".join(code[1:]).splitlines())) <= 105
        assert not any(re.search(r"^(def|class) ", source, re.M) for source in code)
