/* SPDX-License-Identifier: Apache-2.0 */
/* Owns nothing: reads one header block and looks for one header. */
#ifndef BENCH_H2_HPACK_H
#define BENCH_H2_HPACK_H

#include <base/base.h>

/* False: no path, or nothing that can be read. A path longer than the buffer is cut. */
bool h2_hpack_path(const unsigned char *p, size_t len, char *path, size_t size);

#endif
