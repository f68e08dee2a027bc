/* function/runtime_files.h - the zygote's program, compiled in (meson.build makes the bytes). */
#pragma once

#include <stddef.h>

extern const unsigned char runtime_driver[], runtime_library[], runtime_node[];
extern const size_t runtime_driver_n, runtime_library_n, runtime_node_n;
