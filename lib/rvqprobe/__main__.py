"""The command line behind ``./run_all.sh``: ``python -m rvqprobe [STUDY] [-p NAME VALUE]… | lab | test [ARGUMENTS]``."""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from rvqprobe import params
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
    parser = argparse.ArgumentParser(prog="./run_all.sh", description="Run a study from its data to its HTML report.")
    parser.add_argument("study", nargs="?", default=DEFAULT_STUDY, help="a file of params/, without .yaml")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="set a parameter")
    parser.add_argument("--reports", type=Path, default=ROOT / "reports", help="folder of the reports")
    options = parser.parse_args(arguments)
    again = shlex.join(["./run_all.sh", *arguments])
    try:
        study = params.load_study(options.study, {name: params.parse(value) for name, value in options.p})
        print(f"Report: {studies.run(study, options.reports.resolve(), again)}")
    except (ParameterError, MissingInput, studies.StageFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Interrupted; to go on: {again}", file=sys.stderr, flush=True)
        os._exit(130)  # the kernels end with this process; what they have written is whole
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
