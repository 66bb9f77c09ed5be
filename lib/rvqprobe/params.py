"""Every parameter of the study, once: its name, default, meaning and the notebooks that read it."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ("01_split", "02_encode", "03_probe", "04_report")


class ParameterError(ValueError):
    """A parameter that nobody reads, or a value of the wrong kind; the message says what to write instead."""


@dataclass(frozen=True)
class Parameter:
    """One parameter; its kind is the type of its default."""

    name: str
    default: Any
    help: str
    notebooks: str
    """Numbers of the notebooks that read it, such as "12" for 01_split and 02_encode."""
    choices: tuple[str, ...] = ()
    """Words that it may be; of a number, words that it may be besides."""
    minimum: float | None = None

    def check(self, value: Any) -> Any:
        """Return ``value`` in this parameter's kind (an integer will do for a float); ParameterError otherwise."""
        kind = type(self.default)
        if kind is not str and value in self.choices:
            return value
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ParameterError(
                f"parameter {self.name} = {value!r} is a {type(value).__name__}, but it has to be a "
                f"{kind.__name__}, such as {' or '.join([repr(self.default), *self.choices])}"
            )
        if kind is str and self.choices and value not in self.choices:
            raise ParameterError(f"parameter {self.name} = {value!r}: it has to be one of {', '.join(self.choices)}")
        if kind is list and not (value and all(type(item) is str for item in value)):
            raise ParameterError(f"parameter {self.name} = {value!r}: it has to be a list of names")
        if self.minimum is not None and not value >= self.minimum:
            raise ParameterError(f"parameter {self.name} = {value!r}: it has to be at least {self.minimum:g}")
        return value


PROFILES: dict[str, dict[str, Any]] = {
    "sequential": {"workers": 1},
    "local": {},
    "local-fast": {"blas_threads": 1, "max_iter": 300, "evaluate": False},
    "a100": {"device": "cuda", "batch_seconds": 1200.0},
}
"""Other defaults, by what a study runs on: one worker; all cores; all cores, to fill caches and fit probes quickly; a GPU."""

PARAMETERS = (
    Parameter("study", "demo", "name of the study: its folder in results_dir and in reports/", "1234"),
    Parameter("title", "Demo: RVQ layers of untrained codecs on synthetic speech", "title of the report", "4"),
    Parameter(
        "profile",
        "local",
        "defaults to begin from: sequential (one worker, a codec at a time), local (all cores), local-fast (all cores, "
        "at most 300 iterations, no scores), a100 (CUDA, 1200 s of audio at once)",
        "",
        tuple(PROFILES),
    ),
    Parameter("corpus_dir", "lib/demo/LibriSpeech", "the corpus: <subset>/<speaker>/<chapter>/<utterance>.flac", "124"),
    Parameter("alignments_dir", "lib/demo/alignments", "TextGrids, in the same folders as the audio", "1"),
    Parameter("checkpoints_dir", "data/checkpoints", "weights of the neural codecs", "2"),
    Parameter("results_dir", "${RVQPROBE_RESULTS:-results}", "where tables and probes are kept, any disk", "1234"),
    Parameter("subset", "demo", "part of the corpus that is studied", "1"),
    Parameter("codec", "logmel_rvq", "the codec of this notebook: a file in params/codecs/, or a path to one", "23"),
    Parameter(
        "codecs",
        ["encodec-untrained", "speechtokenizer-untrained", "logmel_rvq"],
        "the codecs that the report compares",
        "4",
    ),
    Parameter("eval_fraction", 0.1, "share of each speaker's utterances that is held out", "1", minimum=0.001),
    Parameter("seed", 42, "seeds the choice of speakers, the split and everything random", "1234", minimum=0),
    Parameter(
        "max_utterances", 0, "0 means all, otherwise whole speakers, in seeded order, up to so many", "1", minimum=0
    ),
    Parameter("force_resplit", False, "make the split anew even where a fitting one is saved", "1"),
    Parameter(
        "silence",
        "class",
        "class: silence is a phoneme class, drop: its tokens have no phoneme",
        "1",
        ("class", "drop"),
    ),
    Parameter("stress", "strip", "strip: AH0 and AH1 are both AH, keep: they are two classes", "1", ("strip", "keep")),
    Parameter("device", "auto", "where the codec runs", "2", ("auto", "cpu", "cuda", "mps")),
    Parameter(
        "batch_seconds",
        0.0,
        "audio that is encoded at once, padding included; 0: 600 on a GPU, one utterance at a time on a CPU",
        "2",
        minimum=0,
    ),
    Parameter("shard", "1 of 1", "the part of the corpus that this run encodes, so that several share the work", "2"),
    Parameter("f0_min", 60.0, "lowest F0 looked for, Hz", "2", minimum=20),
    Parameter("f0_max", 400.0, "highest F0 looked for, Hz", "2", minimum=21),
    Parameter(
        "C",
        1.0,
        "inverse strength of the L2 penalty, as in scikit-learn; auto: chosen on a tenth of the training part",
        "3",
        ("auto",),
        minimum=1e-12,
    ),
    Parameter("max_iter", 1000, "most iterations of a phoneme or speaker probe", "3", minimum=1),
    Parameter(
        "max_quarantined",
        0.01,
        "share of utterances with a defect beyond which a run stops",
        "12",
        minimum=0,
    ),
    Parameter(
        "workers",
        0,
        "processes that work side by side, 0 means one a core where the work is worth it",
        "123",
        minimum=0,
    ),
    Parameter("blas_threads", 0, "threads of the linear algebra in each worker, 0 means one", "3", minimum=0),
    Parameter("evaluate", True, "false: fit and save the probes, but do not score them on held-out speech", "3"),
)
BY_NAME = {p.name: p for p in PARAMETERS}


def of(notebook: str) -> list[Parameter]:
    """Return the parameters that ``notebook`` (such as "01_split") reads, in the table's order."""
    return [p for p in PARAMETERS if notebook[1] in p.notebooks]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``known`` name most like ``name``, as the end of an error message."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]}?" if close else f"known are: {', '.join(known)}"


def check(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` checked against the table.

    Raises ParameterError for a name that no notebook knows (naming the nearest known one) and for a wrong kind.
    """
    for name in values:
        if name not in BY_NAME:
            raise ParameterError(f"no notebook knows a parameter {name!r}: {nearest(name, BY_NAME)}")
    checked = {name: BY_NAME[name].check(value) for name, value in values.items()}
    if checked.get("eval_fraction", 0.1) > 0.9:
        raise ParameterError(f"parameter eval_fraction = {checked['eval_fraction']!r}: it has to be at most 0.9")
    part(checked.get("shard", "1 of 1"))
    if "f0_max" in checked or "f0_min" in checked:
        low, high = (checked.get(name, BY_NAME[name].default) for name in ("f0_min", "f0_max"))
        if not low < high:
            raise ParameterError(f"parameter f0_min = {low:g} has to be below f0_max = {high:g}")
    return checked


def part(shard: str) -> tuple[int, int]:
    """Return (I, N) of the parameter ``shard``, "I of N"; ParameterError where it is not that."""
    found = re.fullmatch(r"(\d+) of (\d+)", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ParameterError(f'parameter shard = {shard!r}: it has to be "I of N" with I from 1 to N, such as "2 of 4"')
    return int(found[1]), int(found[2])


def codec_file(codec: str) -> Path:
    """Return ``params/codecs/<codec>.yaml``, or the file ``codec``; ParameterError where it does not exist."""
    file = Path(codec) if codec.endswith(".yaml") else ROOT / "params" / "codecs" / f"{codec}.yaml"
    if not file.is_file():
        known = sorted(f.stem for f in file.parent.glob("*.yaml"))
        raise ParameterError(f"no codec {codec!r} ({file} does not exist): {nearest(codec, known)}")
    return file


def is_trained(codec: str) -> bool:
    """Return whether a codec's file names trained weights; classical and untrained codecs are controls."""
    return yaml.safe_load(codec_file(codec).read_text(encoding="utf-8")).get("weights", "untrained") != "untrained"


def codec_name(codec: str) -> str:
    """Return the name of a codec that is given by its name or by its params file."""
    return Path(codec).stem if codec.endswith(".yaml") else codec


def path(value: str) -> Path:
    """Return a path of the study: ``${NAME:-default}`` filled in, relative to the project's root."""
    filled = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: os.environ.get(m[1]) or m[2], value)
    return Path(os.path.normpath(ROOT / Path(filled).expanduser()))


def resolve(notebook: str, namespace: Mapping[str, Any]) -> SimpleNamespace:
    """Return the parameters of ``notebook`` out of its ``globals()``, checked, with folders as absolute paths."""
    values = check({p.name: namespace[p.name] for p in of(notebook)})
    return SimpleNamespace(**{k: path(v) if k.endswith("_dir") else v for k, v in values.items()})


def parse(text: str) -> Any:
    """Read one value of ``-p NAME VALUE`` as YAML, with floats such as 1e-3 as floats."""
    try:
        return float(text) if re.fullmatch(r"[+-]?\d+(\.\d*)?e[+-]?\d+", text, re.I) else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParameterError(f"{text!r} cannot be read as a value: {error}") from error


def load_study(name: str, overrides: Mapping[str, Any], folder: Path = ROOT / "params") -> dict[str, Any]:
    """Return every parameter of the study in ``folder/<name>.yaml``, with ``overrides``, checked.

    Raises ParameterError where there is no such study (naming the nearest one) or a parameter is wrong.
    """
    file = folder / f"{name}.yaml"
    if not file.is_file():
        studies = sorted(f.stem for f in folder.glob("*.yaml"))
        raise ParameterError(f"no study {name!r} ({file} does not exist): {nearest(name, studies)}")
    content = yaml.safe_load(file.read_text())
    if not isinstance(content, dict):
        raise ParameterError(f"{file} is not a table of parameters")
    if missing := [
        name for name in ("title", "corpus_dir", "alignments_dir", "subset", "codecs") if name not in content
    ]:
        raise ParameterError(f"{file} does not set {', '.join(missing)}, whose defaults are the demo's")
    for source, given in ((file, content), ("-p", overrides)):
        if "codec" in given:
            raise ParameterError(f"{source}: a study sets codecs, a list; codec is a notebook's")
        try:
            check(given)
        except ParameterError as error:
            raise ParameterError(f"{source}: {error}") from error
    given = {"study": name} | content | dict(overrides)
    profile = BY_NAME["profile"].check(given.get("profile", "local"))
    return check({p.name: p.default for p in PARAMETERS} | PROFILES[profile] | given)


def notebook_cell(notebook: str) -> str:
    """Return the source of ``notebook``'s parameters cell."""
    lines = [(f"{p.name} = {_literal(p.default)}", p) for p in of(notebook)]
    width = max(len(code) for code, _ in lines if len(code) < 50)
    return "\n".join(f"{code:<{width}}  # {p.help}" for code, p in lines)


def readme_table() -> str:
    """Return the README's table of parameters."""
    rows = [
        f"| `{p.name}` | `{_literal(p.default)}` | {p.help} | {', '.join(f'0{n}' for n in p.notebooks)} |"
        for p in PARAMETERS
    ]
    return "\n".join(["| parameter | default | meaning | read by |", "|---|---|---|---|", *rows])


def _literal(value: Any) -> str:
    return str(value) if not isinstance(value, (str, list)) else repr(value).replace("'", '"')
