#!/usr/bin/env bash
# Starts the kernel: inside a Slurm job where it is, elsewhere on a GPU of this node through srun (envs/slurm.yaml).
set -euo pipefail
python=$1 connection=$2
if [ -z "${SLURM_JOB_ID:-}" ]; then
  read -ra resources <<< "$("$python" -m rvqprobe.slurm)"
  exec srun "${resources[@]}" --nodelist="$(hostname -s)" --job-name=rvqprobe-kernel "$python" -m ipykernel_launcher -f "$connection"
fi
exec "$python" -m ipykernel_launcher -f "$connection"
