#!/usr/bin/env bash
# Sets dist_train up where needed and starts it on every GPU (without one: two processes on the CPU).
#
#   ./launch.sh                          builds the demo shards and trains configs/demo.yaml
#   ./launch.sh CONFIG [key=value ...]   trains, e.g.: ./launch.sh configs/esc10.yaml run.seed=1
#   ./launch.sh test [fast|full]         checks style and types, then runs the tests; full: the long ones too
#   ./launch.sh test cluster [ARGS...]   the tests that need servers or root: object store, Slurm, hosts with cut links
#   ./launch.sh test ARGS...             runs pytest with these arguments, e.g.: ./launch.sh test tests/test_launch.py
#
# Environment:
#   NPROC      processes on this machine (default: one a GPU; without a GPU 2)
#   LAUNCHER   torchrun (default), accelerate, or python (one process)
#   RESTARTS   times that all processes are started again after a crash (default 0, elastic 10; not with a fixed NNODES)
#   VENV       virtual environment to use (default: an active one that holds this checkout, else .venv beside this file)
#   PYTHON     Python 3.11 to 3.13 that makes the environment (default: the first on PATH)
#   DRY=1      prints the command that trains, instead of running it
#   NNODES, NODE_RANK, MASTER_ADDR [, MASTER_PORT]   several machines: start this on each, with its own NODE_RANK
#   NNODES=MIN:MAX, MASTER_ADDR [, MASTER_PORT]      elastic: machines may leave and come back, but for MASTER_ADDR
# Kubeflow Trainer, Slurm (srun, one task a node) and SkyPilot are recognised by their own variables: docs/clusters.md

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=${VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
stamp=$venv/.dist_train # "torn" while pip works, then the checksum of what it installed and run|test

# shellcheck source=tools/cluster/machines.sh
. "$root/tools/cluster/machines.sh"

say() { echo "launch.sh: $*" >&2; }
die() { say "$*"; exit 2; }

find_python() {
    local name
    for name in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' &> /dev/null || continue
        command -v "$name" && return
    done
    die "no Python 3.11, 3.12 or 3.13 on PATH: install one, or name it with PYTHON=/path/to/python3"
}

# An environment that its owner made for this checkout is used as it is; one that holds another checkout is not.
holds() { # PYTHON MODULE...
    (cd / && "$1" -P -c 'import importlib.util, os, sys
home, *_ = [importlib.util.find_spec(name).origin for name in ("dist_train", "torch", "torchaudio", *sys.argv[3:])]
ours = os.path.realpath(home).startswith(sys.argv[1]) or "site-packages" in home
sys.exit(not ours or os.path.realpath(sys.prefix) == sys.argv[2])' "$root/" "$venv" "${@:2}") &> /dev/null
}

fresh() { # run|test|cluster, each holding those before: is what pyproject.toml asks for installed?
    local state
    state=$(cat "$stamp" 2> /dev/null) || return 1
    case "$1 $state" in "$1 $sum $1" | "$1 $sum cluster" | "run $sum test") ;; *) return 1 ;; esac
    "$venv/bin/python" -c '' &> /dev/null
}

install() { # run|test|cluster; descriptor 9 is a lock that the kernel drops if this process dies
    "$base" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 2> /dev/null || true # Windows has no fcntl
    if fresh "$1"; then return; fi                                               # by another launch.sh meanwhile
    [[ ! -e $venv || -f $venv/pyvenv.cfg || -z $(ls -A "$venv") ]] ||
        die "$venv is not a virtual environment: remove it, or name another with VENV=/path"
    if [[ $(cat "$stamp" 2> /dev/null) == torn ]] || ! "$venv/bin/python" -m pip --version &> /dev/null; then
        say "makes the virtual environment $venv"
        "$base" -m venv --clear "$venv" > /dev/null || { # Debian's Python may have pip without ensurepip
            "$base" -m venv --clear --without-pip "$venv" && "$base" -m pip --python "$venv" install --quiet pip
        } || die "cannot make $venv (see above): is the venv module of $base installed?"
    fi
    say "installs dist_train and what it needs into $venv (the first time some GB, 1 to 10 minutes)"
    echo torn > "$stamp" # what a killed pip leaves behind cannot be trusted
    "$venv/bin/python" -m pip install -qq --no-input --disable-pip-version-check -e "$root${2:-}" ||
        { rm -f "$stamp" && die "the installation failed (see above): mend what pip names, then start again"; }
    echo "$sum $1" > "$stamp"
}

choose() { # run|test|cluster [EXTRA MODULE...]: sets $python, installing where needed
    local active
    for active in ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} python3; do
        if [[ -z ${VENV:-} ]] && holds "$active" "${@:3}"; then python=$(command -v "$active") && return; fi
    done
    sum=$({ cat "$root/pyproject.toml" && echo "$root"; } | cksum | tr ' ' -)
    python=$venv/bin/python
    if [[ -n ${DRY:-} ]] || fresh "$1"; then return; fi
    base=$(find_python)
    mkdir -p "$(dirname "$venv")"
    (install "${@:1:2}") 9> "$venv.lock"
}

run_tests() {
    local modules=(hypothesis mypy pytest pytest_timeout ruff xdist)
    export OMP_NUM_THREADS=1 SKY_PYTHON=$venv.sky/bin/python
    cd "$root"
    if [[ ${1:-} == cluster ]]; then
        choose cluster "[test,cluster]" kubeflow_trainer_api kubernetes_validate "${modules[@]}"
        tools/cluster/servers.sh "$python" "$venv.sky" && exec "$python" -m pytest -m cluster "${@:2}"
    fi
    choose test "[test]" "${modules[@]}"
    case ${1:-fast} in fast | full) ;; *) exec "$python" -m pytest "$@" ;; esac
    "$python" -m ruff check .
    "$python" -m ruff format --check .
    "$python" -m mypy --strict dist_train
    PATH=$(dirname "$python"):$PATH shellcheck ./*.sh tools/cluster/*.sh .ci/run
    if [[ ${1:-} == full ]]; then exec "$python" -m pytest -n 2 --dist worksteal -m "not cluster"; else exec "$python" -m pytest -n 2 --dist worksteal; fi
}

place() { # where this runs: sets $procs, and $start, what python runs to start them
    local config=gpu gpus
    gpus=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU') || gpus=0
    if [[ $gpus != 0 && -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
        gpus=$(tr , '\n' <<< "$CUDA_VISIBLE_DEVICES" | grep -c '^[^-]') || gpus=0
    fi
    [[ $gpus != 0 ]] || config=cpu
    procs=${NPROC:-$((gpus > 0 ? gpus : 2))}
    if [[ -n ${PET_NNODES:-} ]]; then kubeflow && return; fi
    machines
    [[ $nodes == 1 ]] || config=multinode
    case ${LAUNCHER:-torchrun} in
        torchrun)
            start=(-m torch.distributed.run "--nproc-per-node=$procs" "--max-restarts=${RESTARTS:-${elastic:-0}}")
            if [[ $nodes == 1 ]]; then start+=(--standalone)
            elif [[ -n $elastic ]]; then
                start+=("--nnodes=$nodes" --rdzv-backend=c10d "--rdzv-endpoint=$head:$port" "--rdzv-id=$id")
            else # static: rank 0, which saves, stays on machine 0
                start+=("--nnodes=$nodes" "--node-rank=$rank" "--master-addr=$head" "--master-port=$port"); fi ;;
        accelerate)
            [[ $elastic != 10 ]] || die "LAUNCHER=accelerate wants a fixed NNODES; NNODES=$nodes is torchrun's"
            start=(-m accelerate.commands.launch --config_file "$root/configs/accelerate/$config.yaml"
                --num_processes $((nodes * procs)) --num_machines "$nodes" --machine_rank "$rank"
                --main_process_ip "$head" --main_process_port "$port" --max_restarts "${RESTARTS:-0}") elastic= ;;
        python)
            [[ $nodes == 1 ]] || die "LAUNCHER=python starts one process: it cannot serve NNODES=$nodes"
            start=() procs=1 elastic= ;;
        *) die "LAUNCHER=$LAUNCHER is none of torchrun, accelerate, python" ;;
    esac
}

case ${1:-} in
    -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;;
    test) run_tests "${@:2}" ;;
    "") cd "$root" && set -- configs/demo.yaml ;;
esac
case " $* " in *" --print-"*) choose run && exec "$python" -m dist_train "$@" ;; esac
place
choose run
[[ -z $elastic ]] || meet "$@"
command=("$python" ${start[@]+"${start[@]}"} -m dist_train "$@") # bash 3: an empty array counts as unset
cores=$(env -u OMP_NUM_THREADS nproc 2> /dev/null || getconf _NPROCESSORS_ONLN) # nproc obeys OMP_NUM_THREADS
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > procs ? cores / procs : 1))}
export PYTHONFAULTHANDLER=1 TORCH_FR_BUFFER_SIZE=20000 TORCH_NCCL_DUMP_ON_TIMEOUT=1 # stacks and collectives of a hang
printf 'OMP_NUM_THREADS=%s' "$OMP_NUM_THREADS" && printf ' %q' "${command[@]}" && echo
[[ -n ${DRY:-} ]] || exec "${command[@]}"
