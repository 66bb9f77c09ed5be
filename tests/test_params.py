import json

import pytest

from rvqprobe import codecs, params
from rvqprobe.params import NOTEBOOKS, ROOT, ParameterError


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebooks_first_code_cell_is_the_table(notebook: str) -> None:
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    first = next(cell for cell in cells if cell["cell_type"] == "code")
    assert first["metadata"]["tags"] == ["parameters"]
    assert "".join(first["source"]) == params.notebook_cell(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_papermill_understands_every_parameter() -> None:
    from papermill import inspect_notebook

    for notebook in NOTEBOOKS:
        known = inspect_notebook(ROOT / "notebooks" / f"{notebook}.ipynb")
        assert {name: p["help"] for name, p in known.items()} == {p.name: p.help for p in params.of(notebook)}


def test_readme_holds_the_table() -> None:
    assert params.readme_table() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sead", 1, "did you mean seed?"),
        ("max_utterance", 1, "did you mean max_utterances?"),
        ("seed", "one", "has to be a int"),
        ("seed", True, "has to be a int"),
        ("evaluate", "yes", "has to be a bool"),
        ("codecs", "logmel_rvq", "has to be a list"),
        ("codecs", [], "has to be a list of names"),
        ("silence", "drp", "one of class, drop"),
        ("C", 0.0, "at least"),
        ("f0_min", 500.0, "below f0_max"),
        ("eval_fraction", 1.0, "at most 0.9"),
    ],
)
def test_wrong_parameters_are_named_and_put_right(name: str, value: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message.replace("?", r"\?")):
        params.check({name: value})


def test_study_files_are_checked(tmp_path) -> None:
    whole = "title: t\ncorpus_dir: a\nalignments_dir: b\nsubset: x\ncodecs: [logmel_rvq]\n"
    (tmp_path / "good.yaml").write_text(whole)
    (tmp_path / "bad.yaml").write_text(whole + "subst: x\n")
    (tmp_path / "short.yaml").write_text("title: t\nsubset: x\n")
    with pytest.raises(ParameterError, match="short.yaml does not set corpus_dir, alignments_dir, codecs"):
        params.load_study("short", {}, tmp_path)
    assert params.load_study("good", {"C": 2}, tmp_path) | {
        "subset": "x",
        "C": 2.0,
        "study": "good",
    } == params.load_study("good", {"C": 2}, tmp_path)
    with pytest.raises(ParameterError, match=r"bad.yaml: .*'subst': did you mean subset\?"):
        params.load_study("bad", {}, tmp_path)
    with pytest.raises(ParameterError, match=r"did you mean good\?"):
        params.load_study("goood", {}, tmp_path)
    with pytest.raises(ParameterError, match="a study sets codecs"):
        params.load_study("good", {"codec": "logmel_rvq"}, tmp_path)


@pytest.mark.parametrize("file", sorted((ROOT / "params").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_study_is_valid(file) -> None:
    study = params.load_study(file.stem, {})
    assert all(codecs.settings(codec)["module"] for codec in study["codecs"])


def test_folders_may_come_from_the_environment(monkeypatch) -> None:
    monkeypatch.delenv("RVQPROBE_X", raising=False)
    assert params.path("${RVQPROBE_X:-../a}/b") == ROOT.parent / "a" / "b"
    monkeypatch.setenv("RVQPROBE_X", "/c")
    assert str(params.path("${RVQPROBE_X:-../a}/b")) == "/c/b"


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("3", 3), ("true", True), ("[a, b]", ["a", "b"]), ("x", "x")]
)
def test_values_of_the_command_line(text: str, value: object) -> None:
    assert params.parse(text) == value and type(params.parse(text)) is type(value)


def test_unknown_codec_settings_are_named(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("module: rvqprobe.codecs.logmel_rvq\nlayer: 8\n")
    with pytest.raises(ParameterError, match=r"'layer': did you mean layers\?"):
        codecs.settings(str(tmp_path / "mine.yaml"))
    with pytest.raises(ParameterError, match=r"did you mean logmel_rvq\?"):
        codecs.settings("logmel_rqv")
