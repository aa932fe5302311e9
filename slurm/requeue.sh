# What becomes of a job whose processes have ended. Sourced by batch scripts, which run outside of any container.
# shellcheck shell=bash
#
#   note_start RUN NOTES                     before the processes start
#   requeue STATUS RUN NOTES MOST AGAIN      after their end
#
# Sent back to the queue: after status 75 (all is saved, and SLURM could not be asked from in there), and after any other
# failure, a killed process say, until MOST starts in a row, whatever ended them, have saved no step of RUN. Not sent
# back: success, a mistake in the words (2), and jobs that SLURM itself ends. NOTES is a file to count in, AGAIN the
# command with which a person goes on. The same rule for processes that can ask SLURM: `Training.checkpoint` in jobs.py.

# squeue and scontrol take the number of an array's last element for the whole array
job_number() { echo "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"; }

newest_checkpoint() {
    # shellcheck disable=SC2010 # all names that match are ours
    ls "${1:-/nowhere}/checkpoints" 2>/dev/null | grep -x 'step-[0-9]*' | tail -n 1 | grep . || echo 'the beginning'
}

# also of starts that SLURM, or the processes themselves, will requeue
note_start() { [ -z "$1" ] || newest_checkpoint "$1" >>"$2"; }

requeue() {
    local status=$1 run=$2 notes=$3 most=$4 again=$5 newest fruitless
    case $status in 0 | 2) exit "$status" ;; esac
    [ "$(squeue -h -j "$(job_number)" -o %T)" = RUNNING ] || exit "$status"
    newest=$(newest_checkpoint "$run")
    [ "$run" ] || echo "$newest" >>"$notes" # without a run, a part of a shard set: every start gets on, failures count
    fruitless=$(grep -cxF "$newest" "$notes")
    if [ "$fruitless" -ge "$most" ]; then
        echo "slurm: $fruitless starts in a row saved no step (max_restarts): this is the end; see the log above, or give the job more minutes, then go on with: $again" >&2
        exit "$status"
    fi
    echo "slurm: the processes ended with status $status; requeued, to go on from $newest" >&2
    if ! scontrol requeue "$(job_number)"; then
        [ "$status" = 75 ] && status=0 # all is saved
        echo "SLURM refuses to requeue this job; its last checkpoint is safe, go on with: $again"
    fi
    exit "$status"
}
