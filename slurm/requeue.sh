# Decide what happens to a job whose processes have ended. Sourced by the batch scripts,
# which run outside of any container.
# shellcheck shell=bash
#
#   record_start RUN STARTS                                       before the processes start
#   requeue STATUS RUN STARTS MAX_RESTARTS RESUME_COMMAND         after their end
#
# A job is requeued after status 75 (everything is saved, and the processes could not requeue
# the job themselves), and after any other failure, such as a killed process, until
# MAX_RESTARTS consecutive starts, however they ended, have saved no checkpoint of RUN. It is not
# requeued after success, after an error of the user (2), or when SLURM itself ends the job. A
# process that ends with an error which a restart would not fix, such as a lack of memory, creates
# the file $COLORTRAIN_PERMANENT_ERROR_FILE, because STATUS may be that of another process.
# STARTS is a file to which each start appends its checkpoint; RESUME_COMMAND is shown to the
# user. `TrainingJob.checkpoint` in jobs.py applies the same rule where the processes requeue
# the job themselves.

# squeue and scontrol take the job id of an array's last task for the whole array
job_id() { echo "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"; }

newest_checkpoint() {
    # shellcheck disable=SC2010 # the names that match are our own
    ls "${1:-/nowhere}/checkpoints" 2>/dev/null | grep -x 'step-[0-9]*' | tail -n 1 | grep . || echo 'the beginning'
}

# also for starts that SLURM or the processes themselves will requeue
record_start() {
    export COLORTRAIN_PERMANENT_ERROR_FILE=$2.permanent-error
    rm -f "$COLORTRAIN_PERMANENT_ERROR_FILE"
    [ -z "$1" ] || newest_checkpoint "$1" >>"$2"
}

requeue() {
    local status=$1 run=$2 starts=$3 max_restarts=$4 resume_command=$5 newest fruitless
    [ ! -e "$COLORTRAIN_PERMANENT_ERROR_FILE" ] || status=2
    case $status in 0 | 2) exit "$status" ;; esac
    [ "$(squeue -h -j "$(job_id)" -o %T)" = RUNNING ] || exit "$status"
    newest=$(newest_checkpoint "$run")
    # Without a run, as for a part of a shard set, every start makes progress: count failures.
    [ "$run" ] || echo "$newest" >>"$starts"
    fruitless=$(grep -cxF "$newest" "$starts")
    if [ "$fruitless" -ge "$max_restarts" ]; then
        echo "slurm: $fruitless consecutive starts saved no checkpoint (max_restarts), the job is not requeued: see the log above, or increase \`minutes\` in the site file, then resume with: $resume_command" >&2
        exit "$status"
    fi
    echo "slurm: the processes ended with status $status; requeued, to resume from $newest" >&2
    if ! scontrol requeue "$(job_id)"; then
        [ "$status" = 75 ] && status=0 # everything is saved
        echo "SLURM refused to requeue this job; its last checkpoint is safe, resume with: $resume_command"
    fi
    exit "$status"
}
