"""Each notebook through papermill on real speech, one after another, and the report that comes of them."""

import re
import subprocess
from pathlib import Path

import nbformat
import polars as pl
import pytest

from conftest import CHROMIUM, MINI, ROOT
from rvqprobe import __main__ as command
from rvqprobe import figures, params, report, study
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


def printed(page: Path) -> str:
    """What the notebook of an HTML page printed."""
    cells = nbformat.read(page.with_suffix(".ipynb"), 4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.fixture(scope="module")
def split_page(workspace: Path, values: dict) -> Path:
    return report.to_html(study.execute("01_split", None, values, workspace / "reports", "again"), "test")


@pytest.fixture(scope="module")
def encode_page(workspace: Path, values: dict, split_page: Path) -> Path:
    return report.to_html(
        study.execute("02_encode", values["codecs"][0], values, workspace / "reports", "again"), "test"
    )


@pytest.fixture(scope="module")
def probe_page(workspace: Path, values: dict, encode_page: Path) -> Path:
    return report.to_html(
        study.execute("03_probe", values["codecs"][0], values, workspace / "reports", "again"), "test"
    )


@pytest.fixture(scope="module")
def report_page(workspace: Path, values: dict, probe_page: Path) -> Path:
    return report.to_html(study.execute("04_report", None, values, workspace / "reports", "again"), "test")


def test_01_split(split_page: Path, layout: Layout) -> None:
    utterances = pl.read_parquet(layout.split)
    assert utterances.group_by("speaker").len()["len"].to_list() == [20] * 5
    assert utterances.filter(part="eval").group_by("speaker").len()["len"].to_list() == [2] * 5
    assert "567 utterances of 24 speakers found, 2.00 h; 100 chosen." in printed(split_page)
    assert "40 phoneme classes" in printed(split_page)


def test_02_encode(encode_page: Path, layout: Layout) -> None:
    frame = pl.read_parquet(layout.tokens("tiny_rvq") / "tokens-*.parquet")
    utterances = pl.read_parquet(layout.split)
    assert frame.height == int((utterances["seconds"] * 50).ceil().sum())
    assert 0.97 < frame["phone"].count() / frame.height <= 1 and 0.3 < frame["f0_hz"].count() / frame.height < 0.6
    assert frame["f0_hz"].min() > 60 and frame["f0_hz"].max() < 400
    assert f"{frame.height:,} tokens" in printed(encode_page) and "4 layers of 256 codes in 40 dimensions" in printed(
        encode_page
    )


def test_pitch_of_men_and_women(encode_page: Path, layout: Layout) -> None:
    lines = (MINI / "LibriSpeech" / "SPEAKERS.TXT").read_text().splitlines()
    sex = {line.split("|")[0].strip(): line.split("|")[1].strip() for line in lines if not line.startswith(";")}
    frame = pl.read_parquet(layout.tokens("tiny_rvq") / "tokens-*.parquet")
    medians = dict(frame.group_by("speaker").agg(pl.col("f0_hz").median()).iter_rows())
    women, men = ([f0 for speaker, f0 in medians.items() if sex[speaker] == which] for which in "FM")
    assert len(women) + len(men) == 5 and women and men and min(women) > max(men)


def test_03_probe(probe_page: Path, layout: Layout) -> None:
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
    assert "All 40 iterative probes converged." in printed(probe_page)


def test_04_report(report_page: Path, layout: Layout) -> None:
    metrics = pl.read_parquet(layout.metrics)
    assert metrics.equals(pl.read_parquet(layout.codec_metrics("tiny_rvq")))
    page = report_page.read_text()
    own = metrics.filter(task="phoneme", metric="macro_f1", probe="linear", input="layer", lag_ms=0)
    best = own.sort("value").row(-1, named=True)
    interval = f"95 % interval {best['low']:.3f} to {best['high']:.3f}, chance {best['chance']:.3f}"
    assert f"macro-F1 is highest in layer {best['layer']} ({best['value']:.3f}, {interval})" in page
    assert "none of its 5 predictions is tested here" in page
    for value in metrics.filter(pl.col("value") > 0, lag_ms=0)["value"]:
        assert f"{value:,.3f}" in page


def test_pages_ask_nothing_of_the_network(
    split_page: Path, encode_page: Path, probe_page: Path, report_page: Path
) -> None:
    for page in (split_page, encode_page, probe_page, report_page):
        text = page.read_text()
        assert report.POLICY in text and not re.search(
            r"<(script|link|img|iframe)[^>]*(src|href)\s*=\s*['\"]?https?:", text
        )
        assert text.count(report.plotly.offline.get_plotlyjs()) == 1


@pytest.mark.needs("chromium")
def test_a_browser_draws_every_figure(report_page: Path, encode_page: Path, tmp_path: Path) -> None:
    for page, number in ((report_page, 9), (encode_page, 3)):
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000",
            "--dump-dom", f"file://{page}",
        ]  # fmt: skip
        drawn = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        assert len(re.findall(r'<div id="figure-\d+"[^>]*class="[^"]*js-plotly-plot', drawn)) == number
        assert len(re.findall(r'<g class="(?:trace|points)', drawn)) >= number


def test_without_evaluation_there_are_probes_but_no_report(values: dict) -> None:
    assert [notebook for notebook, _ in study.stages(values | {"evaluate": False})] == [
        "01_split",
        "02_encode",
        "03_probe",
    ]


def test_a_failed_stage_names_notebook_log_and_command(workspace: Path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(study.corpus, "require", lambda *_: None)
    reports = workspace / "failed"
    arguments = [
        "librispeech-mini",
        "-p",
        "results_dir",
        str(workspace),
        "-p",
        "corpus_dir",
        str(workspace / "no where"),
    ]
    assert command.main([*arguments, "--reports", str(reports)]) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    folder = reports / "librispeech-mini"
    assert (
        f"{folder}/01_split.ipynb" in last
        and f"{folder}/logs/01_split.log" in last
        and "01_split failed (MissingInput)" in last
    )
    assert f"./run_all.sh librispeech-mini -p results_dir {workspace} -p corpus_dir '{workspace}/no where'" in last
    assert "no speech of train-clean-100" in (folder / "logs" / "01_split.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "max_utterence", "3"], "did you mean max_utterances?"),
        (["-p", "seed", "x"], "seed = 'x' is a str"),
        (["-p", "corpus_dir", "/nowhere"], "looked for /nowhere/train-clean-100/"),
        (["-p", "codecs", "[logmel]"], "did you mean logmel_rvq?"),
    ],
)
def test_mistakes_stop_the_run_before_anything_starts(
    arguments: list[str], message: str, tmp_path: Path, capsys
) -> None:
    assert command.main(["librispeech-mini", *arguments, "--reports", str(tmp_path / "reports")]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "reports").exists()


def test_a_failure_aside_stops_the_study_before_its_report(values: dict, tmp_path: Path, monkeypatch) -> None:
    ran = []

    def execute(notebook: str, codec: str | None, *_, **__) -> Path:
        ran.append(notebook)
        if notebook == "03_probe":
            raise study.StageFailed("03_probe failed")
        return tmp_path / f"{notebook}.ipynb"

    monkeypatch.setattr(study, "execute", execute)
    monkeypatch.setattr(study, "_export", lambda notebook, title: notebook)
    with pytest.raises(study.StageFailed, match="03_probe"):
        study.run(values, tmp_path, "again")
    assert "04_report" not in ran and ran[:2] == ["01_split", "02_encode"]


def test_log_keeps_whole_lines_and_few_states_of_a_bar(tmp_path: Path, capsys, monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(study.time, "monotonic", lambda: now[0])
    with (tmp_path / "log").open("w") as file:
        log = study.Log(file, study.sys.stdout)
        log.write("begin\n")
        for percent in range(0, 101, 10):
            now[0] += 3
            log.write(f"\rbar {percent}%")
        log.write("\n")
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == ["begin", "bar 20%", "bar 60%", "bar 100%"] and capsys.readouterr().out.splitlines() == lines


def test_codecs_keep_their_looks() -> None:
    looks = figures.style(["logmel_rvq", "encodec", "mine", "yours"])
    assert looks["encodec"][0] == figures.PALETTE["encodec"] and len({colour for colour, _ in looks.values()}) == 4
    assert len({symbol for _, symbol in looks.values()}) == 4


def test_notebooks_are_thin() -> None:
    for notebook in params.NOTEBOOKS:
        cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", 4).cells
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        assert 6 <= len(code) <= 15 and max(map(len, "\n".join(code[1:]).splitlines())) <= 105
        assert not any(re.search(r"^(def|class) ", source, re.M) for source in code)
