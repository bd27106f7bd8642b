#!/bin/bash
# dsr under Slurm, one task a GPU. Copy it, change what is your cluster's, and submit it from the checkout:
#   sbatch launch/slurm.sh ds_configs/default.json --mode strong --data STORE
#SBATCH --job-name=dsr
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the time is over, dsr saves and exits with 75; a requeued job goes on from there.
#SBATCH --signal=B:TERM@120

export PATH="$PWD/.venv/bin:$PATH"
exec dsr launch --launcher slurm --gpus "$SLURM_NTASKS" --run-dir "runs/slurm-$SLURM_JOB_ID" \
    ${SLURM_RESTART_COUNT:+--resume} "$@"
