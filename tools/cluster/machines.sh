# shellcheck shell=bash disable=SC2034,SC2154 # what it reads and sets is launch.sh's
# Part of launch.sh: the other machines, by what Slurm, SkyPilot or the caller says.

kubeflow() { # torchrun itself reads PET_*, and a flag would win over them
    [[ ${LAUNCHER:-torchrun} == torchrun ]] || die "LAUNCHER=$LAUNCHER: under Kubeflow Trainer it is torchrun"
    start=(-m torch.distributed.run ${RESTARTS:+"--max-restarts=$RESTARTS"}) elastic=
    [[ -n ${PET_NPROC_PER_NODE:-} && -z ${NPROC:-} ]] || start+=("--nproc-per-node=$procs")
    [[ -n ${NPROC:-} || ! ${PET_NPROC_PER_NODE:-} =~ ^[1-9][0-9]*$ ]] || procs=$PET_NPROC_PER_NODE
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

meet() { # torchrun asks DNS for this machine's own name; ask the route to the meeting point for its address instead
    # An agent that gives up closes the rendezvous for all, if only it can. One that is cut off therefore waits (read_timeout)
    # until the kernel has given its connection up, after 15 minutes: then it can no more, and a new agent takes its place.
    local here mine conf=join_timeout=900,last_call_timeout=15,read_timeout=1800
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
    # wrong settings would fail as often as RESTARTS allows
    [[ $elastic != 10 || -n ${DRY:-} ]] || "$python" -m dist_train "$@" --print-folder > /dev/null
}
