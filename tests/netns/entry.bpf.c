/* SPDX-License-Identifier: Apache-2.0 */
/* Entry programs that only count, so that a test sees which one runs where. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} hits SEC(".maps");

static __attribute__((always_inline)) void count(__u32 slot)
{
	__u64 *n = bpf_map_lookup_elem(&hits, &slot);

	if (n)
		__sync_fetch_and_add(n, 1);
}

#define TC(name_, slot_)                                                                           \
	SEC("tc") int name_(struct __sk_buff *ctx)                                                 \
	{                                                                                          \
		(void)ctx;                                                                         \
		count(slot_);                                                                      \
		return TC_ACT_UNSPEC;                                                              \
	}

TC(first_in, 0)
TC(first_out, 1)
TC(second_in, 2)
TC(second_out, 3)
TC(foreign, 4)

SEC("cgroup/connect4") int first_connect(struct bpf_sock_addr *ctx)
{
	(void)ctx;
	count(5);
	return 1;
}

SEC("cgroup/connect4") int second_connect(struct bpf_sock_addr *ctx)
{
	(void)ctx;
	count(6);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
