"""A study from its parameters to its pages: order, failures, logs, and notebooks run by themselves."""

from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from conftest import ROOT
from rvqprobe import __main__ as command
from rvqprobe import params, study


def test_the_order_of_notebooks() -> None:
    values = params.load_study("demo", {"codecs": ["encodec", "logmel_rvq"]})
    per_codec = [(n, c) for c in ("encodec", "logmel_rvq") for n in ("02_encode", "03_probe")]
    assert study.stages(values) == [("01_split", None), *per_codec, ("04_report", None)]
    assert study.stages(values | {"evaluate": False}) == [("01_split", None), *per_codec]
    assert study.stages(values | {"shard": "2 of 3"}) == [("01_split", None), per_codec[0], per_codec[2]]
    assert study.page_name("02_encode", "folder/mine.yaml", values | {"shard": "2 of 3"}) == "02_encode-mine-2-of-3"


def test_a_failed_stage_names_notebook_log_and_command(tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(study.corpus, "require", lambda *_: None)
    arguments = ["demo", "-p", "results_dir", str(tmp_path), "-p", "corpus_dir", str(tmp_path / "no where")]
    assert command.main([*arguments, "--reports", str(tmp_path)]) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    folder = tmp_path / "demo"
    assert f"{folder}/01_split.ipynb" in last and f"{folder}/logs/01_split.log" in last
    assert "01_split failed (MissingInput)" in last
    assert f"./run_all.sh demo -p results_dir {tmp_path} -p corpus_dir '{tmp_path}/no where'" in last
    assert "no speech of demo" in (folder / "logs" / "01_split.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "max_utterence", "3"], "did you mean max_utterances?"),
        (["-p", "seed", "x"], "seed = 'x' is a str"),
        (["-p", "corpus_dir", "/nowhere"], "looked for /nowhere/demo/"),
        (["-p", "codecs", "[logmel]"], "did you mean logmel_rvq?"),
    ],
)
def test_mistakes_stop_the_run_before_anything_starts(
    arguments: list[str], message: str, tmp_path: Path, capsys
) -> None:
    assert command.main(["demo", *arguments, "--reports", str(tmp_path / "reports")]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "reports").exists()


def test_a_failure_stops_what_has_not_begun_and_the_report(tmp_path: Path, monkeypatch) -> None:
    ran: list[tuple[str, str | None]] = []

    def execute(notebook: str, codec: str | None, *_: Any) -> Path:
        ran.append((notebook, codec))
        if codec == "encodec-untrained":
            raise study.StageFailed("02_encode failed")
        if (notebook, codec) == ("02_encode", "speechtokenizer-untrained"):
            while ("02_encode", "encodec-untrained") not in ran:
                pass
        return tmp_path / f"{notebook}.ipynb"

    monkeypatch.setattr(study, "execute", execute)
    monkeypatch.setattr(study, "_export", lambda notebook, values: notebook)
    monkeypatch.setattr(study, "SIDE_BY_SIDE", 1)
    with pytest.raises(study.StageFailed, match="02_encode"):
        study.run(params.load_study("demo", {}), tmp_path, "again")
    assert ran[:2] == [("01_split", None), ("02_encode", "encodec-untrained")] and ("04_report", None) not in ran
    monkeypatch.setattr(study, "SIDE_BY_SIDE", 2)
    ran.clear()
    with pytest.raises(study.StageFailed, match="02_encode"):
        study.run(params.load_study("demo", {}), tmp_path, "again")
    assert ("03_probe", "speechtokenizer-untrained") in ran and ("04_report", None) not in ran  # what was begun is done


def test_log_keeps_whole_lines_and_few_states_of_a_bar(tmp_path: Path, capsys, monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(study.time, "monotonic", lambda: now[0])
    with (tmp_path / "log").open("w") as file:
        log = study.Log(file, "02_encode")
        log.write("begin\n")
        for percent in range(0, 101, 10):
            now[0] += 3
            log.write(f"\rbar {percent}%")
        log.write("\n")
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == ["begin", "bar 20%", "bar 60%", "bar 100%"]
    assert capsys.readouterr().out.splitlines() == [f"02_encode │ {line}" for line in lines]


def run_alone(notebook: str, folder: Path) -> Any:
    """Run a notebook as somebody who opens it does: with its defaults, in its own folder."""
    source = ROOT / "notebooks" / f"{notebook}.ipynb"
    papermill.execute_notebook(source, folder / f"{notebook}.ipynb", cwd=str(source.parent), progress_bar=False)
    return nbformat.read(folder / f"{notebook}.ipynb", 4)


def test_notebooks_by_themselves_say_what_has_to_run_first(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RVQPROBE_RESULTS", str(tmp_path / "results"))
    for notebook, wanted in (("04_report", "01_split"), ("02_encode", "01_split"), ("03_probe", "01_split")):
        with pytest.raises(PapermillExecutionError, match=rf"MissingInput: .*run the notebook {wanted}"):
            run_alone(notebook, tmp_path)
    run_alone("01_split", tmp_path)
    with pytest.raises(PapermillExecutionError, match=r"run the notebook 02_encode \(codec logmel_rvq\)"):
        run_alone("03_probe", tmp_path)
    with pytest.raises(PapermillExecutionError, match=r"run the notebook 03_probe \(codec encodec-untrained"):
        run_alone("04_report", tmp_path)


def test_notebooks_run_by_themselves_in_any_order(demo: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RVQPROBE_RESULTS", str(demo / "results"))
    for notebook in ("04_report", "03_probe", "02_encode", "01_split"):
        cells = run_alone(notebook, tmp_path).cells
        assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
