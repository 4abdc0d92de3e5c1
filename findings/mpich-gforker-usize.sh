#!/usr/bin/env bash
# MPICH 5.0.2 and 4.3.2 (PyPI): mpiexec.gforker refuses its own option -usize, which its usage lists first.
#
# `mpiexec.gforker -usize 9 -n 2 echo hello` ends with 1 and "Unable to process soft arguments", though no -soft was given;
# `mpiexec.gforker -n 2 echo hello` runs. The universe's size can therefore not be set: processes see MPI_UNIVERSE_SIZE=-1.
# The same on every run. Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for version in 5.0.2 4.3.2; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --no-deps "mpich==$version"
    gforker=$folder/$version/bin/mpiexec.gforker
    echo "MPICH $version"
    "$gforker" -n 2 sh -c 'echo "rank $PMI_RANK of $PMI_SIZE, universe $MPI_UNIVERSE_SIZE"' | sort
    code=0
    seen=$("$gforker" -usize 9 -n 2 echo hello 2>&1) || code=$?
    echo "with -usize 9: status $code, $seen"
    [ "$code $seen" = "1 Unable to process soft arguments" ] || { echo "MPICH $version now does something else"; exit 1; }
done
