"""What a notebook ran on: its parameters, package versions, git commit and machine."""

import platform
import shutil
import subprocess
from importlib.metadata import version
from types import SimpleNamespace

import joblib
import polars as pl
import psutil

from rvqprobe.params import BY_NAME, ROOT, path

PACKAGES = (
    "torch",
    "torchaudio",
    "encodec",
    "speechtokenizer",
    "librosa",
    "scikit-learn",
    "numpy",
    "scipy",
    "polars",
    "plotly",
)


def commit() -> str:
    """Return the project's git commit, marked where files differ from it; "unknown" outside a checkout."""
    answer = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty= (with uncommitted changes)", "--abbrev=12", "--exclude=*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return answer.stdout.strip() or "unknown"


def parameters(resolved: SimpleNamespace) -> pl.DataFrame:
    """Return each parameter of a notebook with its value and, where that is another, its default."""
    values = {name: (str(value), BY_NAME[name].default) for name, value in vars(resolved).items()}
    rows = [(n, v, str(path(d)) if n.endswith("_dir") else str(d), BY_NAME[n].help) for n, (v, d) in values.items()]
    return pl.DataFrame(rows, ["parameter", "value", "default", "meaning"], orient="row").with_columns(
        default=pl.when(pl.col("value") == pl.col("default")).then(pl.lit("")).otherwise("default")
    )


def machine() -> pl.DataFrame:
    """Return versions, commit and machine as rows of (what, which)."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    gpu = subprocess.run(query, capture_output=True, text=True, check=False).stdout if shutil.which(query[0]) else ""
    memory = f"{joblib.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    rows = [
        ("commit", commit()),
        ("machine", memory),
        ("GPU", ", ".join(gpu.split("\n")[:-1]) or "none"),
        ("system", system),
        ("packages", packages),
    ]
    return pl.DataFrame(rows, ["what", "which"], orient="row")
