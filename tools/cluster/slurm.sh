#!/usr/bin/env bash
# Trains on several machines of a Slurm cluster, through time limits, pre-emption and requeues:
#   sbatch --nodes=4 --gpus-per-node=8 --time=12:00:00 tools/cluster/slurm.sh CONFIG [key=value ...]
# Submit it in this checkout, which all machines must see at the same path, as they must see the shards and the run folder
# (where it puts STOP: checkpoint.store alone does not do). Three minutes before the time limit the run saves and the job
# queues itself again.
#SBATCH --job-name=dist_train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
#SBATCH --signal=B:USR1@180
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?this is for sbatch}"
asked='' code=0
trap 'asked=yes' USR1 # first of all: it would end a script that does not listen yet
run=$(./launch.sh "$@" --print-folder)

echo "slurm.sh: job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, start $((${SLURM_RESTART_COUNT:-0} + 1)), run folder $run"
# srun does not take the job's --cpus-per-task over by itself
srun --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}" --kill-on-bad-exit=1 \
    ./launch.sh "$@" &
srun=$!
while kill -0 "$srun" 2> /dev/null; do
    sleep 5 & wait $! || true                     # a signal ends this wait at once
    [[ -z $asked ]] || touch "$run/STOP" || true # again and again: a run that is only just beginning removes it
done
wait "$srun" || code=$?
rm -f "$run/STOP"

if [[ $code == 0 && -n $asked && ! -e $run/result.json ]]; then
    echo "slurm.sh: saved before the time limit; queues job $SLURM_JOB_ID again"
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
