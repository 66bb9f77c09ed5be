#!/usr/bin/env bash
# Compiles envs/requirements.txt from envs/requirements.in, for Python 3.11 to 3.13. Needs uv.
# CUDA packages that torch itself pins exactly are left to it, so that another torch build brings its own.
set -euo pipefail
cd "$(dirname "$0")/.."
uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-annotate --no-header envs/requirements.in |
  grep -vE '^(nvidia-|triton|cuda-toolkit)' > envs/requirements.txt
