#!/usr/bin/env bash
# What the tests marked `cluster` start, installed where it is missing; tests of what stays absent are skipped by name.
#   tools/cluster/servers.sh PYTHON FOLDER     FOLDER: environment for SkyPilot, which pins much of what it needs
set -euo pipefail

missing=()
for name in nginx:nginx slurmctld:slurm-wlm munged:munge ip:iproute2 ping:iputils-ping; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${name%:*}" &> /dev/null || missing+=("${name#*:}")
done
if [[ ${#missing[@]} != 0 && $(id -u) == 0 ]] && command -v apt-get &> /dev/null; then
    echo "servers.sh: installs ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 # Debian would start what it installs
    apt-get install -qq -y "${missing[@]}" || { apt-get update -qq && apt-get install -qq -y "${missing[@]}"; } ||
        echo "servers.sh: cannot install ${missing[*]} (see above)" >&2
fi
if ! "$2/bin/python" -c 'import sky' &> /dev/null; then
    echo "servers.sh: installs SkyPilot into $2 (some minutes)" >&2
    { "$1" -m venv --clear "$2" && "$2/bin/python" -m pip install -qq 'skypilot>=0.10,<1'; } ||
        echo "servers.sh: cannot install skypilot (see above)" >&2
fi
