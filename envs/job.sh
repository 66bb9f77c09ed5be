#!/usr/bin/env bash
# A Slurm job: runs its arguments, with the number of an array's task for @TASK@. Warned before its time limit (USR1), it
# stops them. An encoding queues again and goes on where it stopped; another notebook would begin anew, so it fails.
warned() {
  kill -TERM "$command"
  wait "$command"
  case " $* " in
    *" 02_encode "*) echo "The time limit is near: stopped, to go on in a new run of job $SLURM_JOB_ID."
      exec scontrol requeue "$SLURM_JOB_ID" ;;
    *) echo "The time limit is near: stopped. Give it more time (envs/slurm.yaml) and go on: ${RVQPROBE_AGAIN:-}" >&2
      exit 1 ;;
  esac
}
trap 'warned "$@"' USR1
"${@//@TASK@/${SLURM_ARRAY_TASK_ID:-}}" &
command=$!
wait "$command"
