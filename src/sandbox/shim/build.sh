#!/bin/sh
# build.sh MUSL_GCC SRC OUT DEPFILE FILES...: one static binary in one compiler run.
set -eu
cc=$1 src=$2 out=$3 dep=$4
shift 4
multi=$(gcc -print-multiarch 2>/dev/null || uname -m)
"$cc" -std=gnu17 -Os -static -s -D_GNU_SOURCE -DTANDEM_SHIM -fno-strict-aliasing -fno-asynchronous-unwind-tables \
    -ffunction-sections -fdata-sections -Wl,--gc-sections -Wall -Wextra -Wno-unused-parameter \
    -I "$src" -idirafter /usr/include -idirafter "/usr/include/$multi" -o "$out" "$@" -lm
{ printf '%s:' "$out"; for f in "$@" "$src"/base/*.h "$src"/base/err.def "$src"/codec/*.h "$src"/sandbox/*.h \
    "$src"/sandbox/*.def "$src"/sandbox/shim/*.h; do printf ' %s' "$f"; done; echo; } > "$dep"
