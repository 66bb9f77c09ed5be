"""The command line behind ``./run_all.sh``: ``python -m rvqprobe [STUDY] [-p NAME VALUE]… | lab | test [ARGUMENTS]``."""

import argparse
import io
import os
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rvqprobe import codecs, params, slurm
from rvqprobe import study as studies
from rvqprobe.params import ROOT, ParameterError
from rvqprobe.store import MissingInput

DEFAULT_STUDY = "demo"
LAB = (
    "--ip=127.0.0.1",
    f"--ServerApp.root_dir={ROOT}",
    "--LabApp.default_url=/lab/tree/notebooks/01_split.ipynb",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.news_url=None",
)
"""JupyterLab's options: for this machine only, and asking nothing of the network; the token is Jupyter's own."""


def main(arguments: list[str]) -> int:
    """Run what the command line says and return the exit status."""
    if arguments[:1] == ["test"]:
        return subprocess.run([sys.executable, "-m", "pytest", *arguments[1:]], cwd=ROOT, check=False).returncode
    if arguments[:1] == ["lab"]:
        return subprocess.run(
            [sys.executable, "-m", "jupyterlab", *LAB, *arguments[1:]], cwd=ROOT, check=False
        ).returncode
    if arguments[:1] == ["setup"]:
        return _setup(*arguments[1:])
    if arguments[:1] in (["fetch"], ["estimate"]):
        return _prepare(arguments)
    parser = argparse.ArgumentParser(prog="./run_all.sh", description="Run a study from its data to its HTML report.")
    parser.add_argument("study", nargs="?", default=DEFAULT_STUDY, help="a file of params/, without .yaml")
    _add_parameters(parser)
    parser.add_argument("--reports", type=Path, default=ROOT / "reports", help="folder of the reports")
    parser.add_argument("--stage", choices=params.NOTEBOOKS, help="run this notebook only")
    parser.add_argument("--codec", help="the codec of the stage")
    parser.add_argument("--kernel", default=studies.KERNEL, help="Jupyter kernel of the stage")
    parser.add_argument("--slurm", action="store_true", help="submit the notebooks as Slurm jobs")
    parser.add_argument("--shards", type=int, default=1, help="jobs that share the encoding of a codec")
    parser.add_argument("--dry-run", action="store_true", help="print the sbatch lines only")
    options = parser.parse_args(arguments)
    if options.slurm and options.stage:
        parser.error("--slurm submits all notebooks, --stage runs one: choose")
    if not options.slurm and (options.dry_run or options.shards != 1):
        parser.error("--shards and --dry-run go with --slurm")
    if options.codec and not options.stage:
        parser.error("--codec goes with --stage; -p codecs '[NAME]' chooses the codecs of a study")
    again = os.environ.get("RVQPROBE_AGAIN") or shlex.join(["./run_all.sh", *arguments])
    reports_dir = _resolve(options.reports)
    try:
        study = _load(options)
        if options.slurm:
            if options.shards < 1:
                raise ParameterError(f"--shards {options.shards}: it has to be at least 1")
            if not options.dry_run:
                studies.check_inputs(study)
            given = [
                options.study,
                *(word for pair in options.p for word in ("-p", *pair)),
                "--reports",
                str(reports_dir),
            ]
            slurm.submit(study, given, options.shards, reports_dir, again, options.dry_run)
        elif options.stage:
            studies.run_stage(options.stage, options.codec, study, reports_dir, again, options.kernel)
        else:
            print(f"Report: {studies.run(study, reports_dir, again)}")
    except (ParameterError, MissingInput, studies.StageFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Interrupted; to go on: {again}", file=sys.stderr, flush=True)
        os._exit(130)  # the kernels end with this process; what they have written is whole
    return 0


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")


def _load(options: argparse.Namespace) -> dict[str, Any]:
    return params.load_study(options.study, {name: params.parse(value) for name, value in options.p})


def _setup(device: str = "auto") -> int:
    """Say what torch runs on; 1 where ``device`` is not there."""
    try:
        found = codecs.device(device)
    except ParameterError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"torch {version('torch')} runs on {found}")
    return 0


def _resolve(path: Path) -> Path:
    """Return a path of the command line, absolute: from where the user called, which is not where ``run_all.sh`` runs."""
    return (Path(os.environ.get("RVQPROBE_CALLER") or ".") / path).resolve()


def _prepare(arguments: list[str]) -> int:
    """Run ``fetch`` or ``estimate``."""
    from rvqprobe import estimate, fetch  # torch and more, which other commands need not wait for

    parser = argparse.ArgumentParser(
        prog="./run_all.sh", description="Get what a study needs, or estimate what it takes."
    )
    parser.add_argument("verb", choices=("fetch", "estimate"))
    parser.add_argument("study", help="a file of params/, without .yaml")
    _add_parameters(parser)
    parser.add_argument(
        "--alignments", type=Path, help="fetch: take in the TextGrids of this archive, which you downloaded"
    )
    options = parser.parse_args(arguments)
    try:
        study = _load(options)
        if options.verb == "fetch":
            fetch.fetch(study, options.alignments and _resolve(options.alignments))
        else:
            with redirect_stdout(io.StringIO()):  # the rehearsal's bars
                facts, minutes = estimate.estimate(study)
            for what, much in facts.iter_rows():
                print(f"{what:>30}  {much}")
            for stage, number in minutes.iter_rows():
                print(f"{stage:>30}  {number:.1f} min")
    except (ParameterError, MissingInput, fetch.FetchError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
