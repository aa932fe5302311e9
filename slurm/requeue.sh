# What becomes of a job whose processes have ended. Sourced by batch scripts, which run outside of any container.
#
#   requeue STATUS RUN NOTES MOST AGAIN
#
# Sent back to the queue: after status 75 (all is saved, and SLURM could not be asked from in there), and after any other
# failure, a killed process say, until MOST of them in a row have ended at one and the same checkpoint of RUN. Not sent
# back: success, a mistake in the words (2), and jobs that SLURM itself ends. NOTES is a file to count in, AGAIN the
# command with which a person goes on.

# squeue and scontrol take the number of an array's last element for the whole array
job_number() { echo "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"; }

newest_checkpoint() {
    ls "${1:-/nowhere}/checkpoints" 2>/dev/null | grep -x 'step-[0-9]*' | tail -n 1 | grep . || echo 'the beginning'
}

requeue() {
    local status=$1 run=$2 notes=$3 most=$4 again=$5 newest failures
    case $status in 0 | 2) exit "$status" ;; esac
    [ "$(squeue -h -j "$(job_number)" -o %T)" = RUNNING ] || exit "$status"
    if [ "$status" != 75 ]; then
        newest=$(newest_checkpoint "$run")
        echo "$newest" >>"$notes"
        failures=$(grep -cxF "$newest" "$notes")
        if [ "$failures" -ge "$most" ]; then
            echo "slurm: $failures starts in a row ended with a failure and saved no step (max_restarts): this is the end; see the log above, then go on with: $again" >&2
            exit "$status"
        fi
        echo "slurm: the processes ended with status $status; requeued, to go on from $newest" >&2
    fi
    if ! scontrol requeue "$(job_number)"; then
        [ "$status" = 75 ] && status=0 # all is saved
        echo "SLURM refuses to requeue this job; its last checkpoint is safe, go on with: $again"
    fi
    exit "$status"
}
