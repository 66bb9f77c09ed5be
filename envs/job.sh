#!/usr/bin/env bash
# A Slurm job: runs its arguments, with the number of an array's task for %a. Warned before its time limit (USR1), it stops
# them and queues again; what they had finished is kept.
requeue() {
  echo "The time limit is near: stopping, to go on in a new run of job $SLURM_JOB_ID."
  kill -TERM "$command"
  wait "$command"
  exec scontrol requeue "$SLURM_JOB_ID"
}
trap requeue USR1
"${@//%a/${SLURM_ARRAY_TASK_ID:-}}" &
command=$!
wait "$command"
