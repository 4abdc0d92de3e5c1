#!/usr/bin/env bash
# gloo (torch 2.13.0, CPU): the address that a rank stores for the others grows by 8 bytes for each rank of the group, so all of them
# together grow with the square (by that, 1,024 ranks read 8 MB each, and the store sends 8 GB).
#
# Each address lists a number for the connection with each rank. With GLOO_ENABLE_RANK_AS_SEQUENCE_NUMBER=1 on all ranks the list is left
# out, and the length is the same for 4 and 16 ranks. Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat > "$folder/rank.py" <<'END'
import sys
import torch.distributed as dist


class Told(dist.Store):
    """Passes all on to a file, and notes how long what this rank sets is."""

    def __init__(self, path, size):
        super().__init__()
        self.file = dist.FileStore(path, size)
        self.longest = 0

    def set(self, key, value):
        self.longest = max(self.longest, len(value))
        self.file.set(key, value)

    def get(self, key):
        return self.file.get(key)

    def add(self, key, number):
        return self.file.add(key, number)

    def wait(self, keys, timeout=None):
        self.file.wait(keys)

    def set_timeout(self, timeout):
        self.file.set_timeout(timeout)


rank, size, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
store = Told(path, size)
dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
if rank == 0:
    print(store.longest)
dist.barrier()
dist.destroy_process_group()
END

length() { # prints the length of rank 0's address in a group of $1 ranks
    rm -f "$folder/store"
    for rank in $(seq 0 $(($1 - 1))); do
        GLOO_SOCKET_IFNAME=lo timeout 120 "$folder/venv/bin/python" "$folder/rank.py" "$rank" "$1" "$folder/store" 2>/dev/null &
    done
    wait
}

by_rank=$(length 4),$(length 16)
export GLOO_ENABLE_RANK_AS_SEQUENCE_NUMBER=1
numbered=$(length 4),$(length 16)
"$folder/venv/bin/python" -c "import torch; print('torch', torch.__version__)"
echo "bytes for 4 and 16 ranks: $by_rank; with ranks as numbers: $numbered"
[ $((${by_rank#*,} - ${by_rank%,*})) = $((12 * 8)) ] && [ "${numbered#*,}" = "${numbered%,*}" ] ||
    { echo "gloo of this torch now does something else"; exit 1; }
