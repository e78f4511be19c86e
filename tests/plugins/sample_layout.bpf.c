/* SPDX-License-Identifier: Apache-2.0 */
/* The test plugin's BPF with another map value under the same schema number. */
#define SAMPLE_LAYOUT 1
#include "sample.bpf.c"
