/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether two BTF types describe the same bytes.
 *
 * Owns the comparison that the kernel does not make: it accepts a pinned map whose members were
 * swapped as long as the sizes agree. Pure.
 */
#ifndef PB_DATAPATH_LAYOUT_H
#define PB_DATAPATH_LAYOUT_H

#include <bpf/btf.h>

#include <base/base.h>

/*
 * Compares names, offsets and sizes, member by member and level by level. Signedness, typedefs
 * and names of structures don't matter. false: `why` says which member differs and how.
 */
bool pb_layout_same(const struct btf *was, uint32_t was_id, const struct btf *now, uint32_t now_id,
		    char *why, size_t len);

#endif
