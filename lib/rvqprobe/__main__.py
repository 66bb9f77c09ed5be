"""The command line behind ``./run_all.sh``: ``python -m rvqprobe [STUDY] [-p NAME VALUE]… | test [PYTEST ARGUMENTS]``."""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from rvqprobe import params
from rvqprobe import study as studies
from rvqprobe.params import ROOT, ParameterError
from rvqprobe.store import MissingInput

DEFAULT_STUDY = "demo"


def main(arguments: list[str]) -> int:
    """Run what the command line says and return the exit status."""
    if arguments[:1] == ["test"]:
        return subprocess.run([sys.executable, "-m", "pytest", *arguments[1:]], cwd=ROOT, check=False).returncode
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
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
