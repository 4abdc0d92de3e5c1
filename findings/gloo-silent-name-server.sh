#!/usr/bin/env bash
# gloo (torch 2.13.0, CPU): a group of one process, which connects to nobody, asks for the address of its host's own name, and waits 10 s
# where a name server does not answer.
#
# Seen in a network of its own, whose name server is a socket that nobody reads, on a host whose name is not in /etc/hosts. With
# GLOO_SOCKET_IFNAME=lo the group is there at once. Needs root, or a kernel that lets users have namespaces. Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
echo "127.0.0.1 localhost" > "$folder/hosts"
echo "nameserver 127.0.0.9" > "$folder/resolv.conf"
cat > "$folder/alone.py" <<'END'
import socket
import time

import torch
import torch.distributed as dist

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
    silent.bind(("127.0.0.9", 53))
    begun = time.monotonic()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    print(round(time.monotonic() - begun))
END

seconds() { # prints the seconds that a group of one takes, with the variables that are given
    env "$@" unshare --net --mount --uts --map-root-user sh -ec '
        ip link set lo up
        hostname odd-host
        for file in hosts resolv.conf; do mount --bind "$0/$file" "/etc/$file"; done
        exec timeout 60 "$0/venv/bin/python" "$0/alone.py"' "$folder" 2>/dev/null
}

"$folder/venv/bin/python" -c "import torch; print('torch', torch.__version__)"
seen="$(seconds) s; with GLOO_SOCKET_IFNAME=lo $(seconds GLOO_SOCKET_IFNAME=lo) s"
echo "$seen"
[ "$seen" = "10 s; with GLOO_SOCKET_IFNAME=lo 0 s" ] || { echo "gloo of this torch now does something else"; exit 1; }
