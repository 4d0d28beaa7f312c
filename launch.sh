#!/usr/bin/env bash
# Sets dist_train up where needed and starts it on every GPU (without one: two processes on the CPU).
#
#   ./launch.sh                          builds the demo shards and trains configs/demo.yaml
#   ./launch.sh CONFIG [key=value ...]   trains, e.g.: ./launch.sh configs/esc10.yaml run.seed=1
#   ./launch.sh test [fast|full]         checks style and types, then runs the tests; full: the long ones too
#   ./launch.sh test cluster             the tests that need servers or root: object store, Slurm, hosts with cut links
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
    if [[ ${1:-} == cluster ]]; then
        choose cluster "[test,cluster]" kubeflow_trainer_api kubernetes_validate pytest
        export SKY_PYTHON=$venv.sky/bin/python
        "$root/tools/cluster/servers.sh" "$python" "$venv.sky"
    else
        choose test "[test]" hypothesis mypy pytest pytest_timeout ruff xdist
    fi
    cd "$root"
    export OMP_NUM_THREADS=1
    case ${1:-fast} in fast | full) ;; cluster) exec "$python" -m pytest -m cluster ;; *) exec "$python" -m pytest "$@" ;; esac
    "$python" -m ruff check .
    "$python" -m ruff format --check .
    "$python" -m mypy --strict dist_train
    PATH=$(dirname "$python"):$PATH shellcheck ./*.sh tools/cluster/*.sh .ci/run
    if [[ ${1:-} == full ]]; then exec "$python" -m pytest -n 2 -m "not cluster"; else exec "$python" -m pytest -n 2; fi
}

machines() { # how many there are, which this is, where they meet: sets $nodes, $rank, $head, $port, $id, $elastic
    nodes=${NNODES:-1} rank=${NODE_RANK:-} head=${MASTER_ADDR:-} port=${MASTER_PORT:-29500} id=dist_train elastic=
    if [[ -n ${SLURM_JOB_ID:-} ]]; then
        nodes=${SLURM_STEP_NUM_NODES:-${SLURM_NNODES:-1}} rank=${SLURM_NODEID:-0}
        [[ $nodes == 1 || -n ${SLURM_STEP_ID:-} ]] && [[ ${SLURM_STEP_NUM_TASKS:-$nodes} == "$nodes" ]] ||
            die "Slurm wants one of this a machine: srun --ntasks-per-node=1 ./launch.sh ..., as in tools/cluster/slurm.sh"
        [[ $nodes == 1 ]] || head=$(scontrol show hostnames "${SLURM_STEP_NODELIST:-$SLURM_JOB_NODELIST}")
        head=${head%%$'\n'*} port=$((20000 + SLURM_JOB_ID % 20000)) id=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0} elastic=0
    elif [[ -n ${SKYPILOT_NODE_IPS:-} ]]; then
        nodes=${SKYPILOT_NUM_NODES:-1} rank=${SKYPILOT_NODE_RANK:-} head=${SKYPILOT_NODE_IPS%%$'\n'*}
    elif [[ $nodes == *:* ]]; then elastic=10; fi
    [[ $nodes =~ ^[1-9][0-9]*(:[1-9][0-9]*)?$ && $procs =~ ^[1-9][0-9]*$ && ${nodes%:*} -le ${nodes#*:} ]] ||
        die "NNODES=$nodes, NPROC=$procs: counts, please (1, 2, ...; elastic NNODES=2:4)"
    if [[ $nodes == 1 ]]; then rank=0 head=127.0.0.1 port=0 elastic=; fi
    [[ -n $head && (-n $rank || $elastic == 10) && ($nodes == 1 || -n $elastic || ${RESTARTS:-0} == 0) ]] ||
        die "NNODES=$nodes needs NODE_RANK (0 to $((${nodes#*:} - 1))), MASTER_ADDR (address of machine 0) and no RESTARTS"
}

place() { # where this runs: sets $procs, and $start, what python runs to start them
    local config=gpu gpus
    gpus=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU') || gpus=0
    if [[ $gpus != 0 && -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
        gpus=$(tr , '\n' <<< "$CUDA_VISIBLE_DEVICES" | grep -c '^[^-]') || gpus=0
    fi
    [[ $gpus != 0 ]] || config=cpu
    procs=${NPROC:-$((gpus > 0 ? gpus : 2))}
    if [[ -n ${PET_NNODES:-} ]]; then # Kubeflow Trainer: torchrun itself reads PET_*, and a flag would win over them
        [[ ${LAUNCHER:-torchrun} == torchrun ]] || die "LAUNCHER=$LAUNCHER: under Kubeflow Trainer it is torchrun"
        start=(-m torch.distributed.run ${RESTARTS:+"--max-restarts=$RESTARTS"}) elastic=
        [[ -n ${PET_NPROC_PER_NODE:-} && -z ${NPROC:-} ]] || start+=("--nproc-per-node=$procs")
        [[ -n ${NPROC:-} || ! ${PET_NPROC_PER_NODE:-} =~ ^[1-9][0-9]*$ ]] || procs=$PET_NPROC_PER_NODE
        return
    fi
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

meet() { # torchrun asks DNS for this machine's own name; ask the route to the meeting point for its address instead
    local here mine conf=join_timeout=900,last_call_timeout=15
    here=$("$python" -c 'import socket, sys
kind, *_, there = socket.getaddrinfo(*sys.argv[1:], type=socket.SOCK_DGRAM)[0]
with socket.socket(kind, socket.SOCK_DGRAM) as out:
    out.connect(there)
    here = out.getsockname()[0]
own = here[:4] == "127." != sys.argv[1][:4] and sys.argv[1] != "localhost" # its own name, which others know better
print("" if own else here, int(own or here == there[0]))' "$head" "$port" 2> /dev/null) || [[ -n ${DRY:-} ]] ||
        die "no way from this machine to MASTER_ADDR=$head: is the name right, is the network up?"
    mine=${here#* } here=${here% *}
    [[ -z $rank ]] || mine=$((rank == 0))
    start+=("--rdzv-conf=$conf${mine:+,is_host=$mine}" ${here:+"--local-addr=$here"})
    # torchrun's agents would keep the address of the first rendezvous for good, whose machine may be gone
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
}

case ${1:-} in
    -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit ;;
    test) run_tests "${@:2}" ;;
    "") cd "$root" && set -- configs/demo.yaml ;;
esac
case " $* " in *" --print-"*) choose run && exec "$python" -m dist_train "$@" ;; esac
place
choose run
[[ -z $elastic ]] || meet
command=("$python" ${start[@]+"${start[@]}"} -m dist_train "$@") # bash 3: an empty array counts as unset
cores=$(env -u OMP_NUM_THREADS nproc 2> /dev/null || getconf _NPROCESSORS_ONLN) # nproc obeys OMP_NUM_THREADS
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > procs ? cores / procs : 1))}
export PYTHONFAULTHANDLER=1 TORCH_FR_BUFFER_SIZE=20000 TORCH_NCCL_DUMP_ON_TIMEOUT=1 # stacks and collectives of a hang
printf 'OMP_NUM_THREADS=%s' "$OMP_NUM_THREADS" && printf ' %q' "${command[@]}" && echo
[[ -n ${DRY:-} ]] || exec "${command[@]}"
