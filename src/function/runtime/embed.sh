#!/bin/sh
# embed.sh OUT NAME FILE [NAME FILE ...]: the files' bytes as C arrays NAME and NAME_n.
set -eu
out=$1; shift
{
    echo '#include "function/runtime_files.h"'
    while [ $# -ge 2 ]; do
        echo "const unsigned char $1[] = {"
        od -An -v -tu1 "$2" | sed 's/  */,/g; s/^,//; s/$/,/'
        echo "0};"
        echo "const size_t $1_n = sizeof $1 - 1;"
        shift 2
    done
} > "$out"
