/* SPDX-License-Identifier: Apache-2.0 */
/* The test plugin's BPF with a program that the verifier refuses. */
#define SAMPLE_UNBOUNDED 1
#include "sample.bpf.c"
