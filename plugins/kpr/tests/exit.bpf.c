// SPDX-License-Identifier: Apache-2.0
/* Stands in for the core's exit in plugins/kpr/tests/sock_bed.c: executes the verdict. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define EXIT(attach)                                                                               \
	SEC("cgroup/" #attach) int exit_##attach(struct bpf_sock_addr *ctx)                        \
	{                                                                                          \
		(void)ctx;                                                                         \
		return bpf_get_retval() >= 0;                                                      \
	}
/* The kernel lets these hooks refuse nothing. */
#define EXIT_ALWAYS(attach)                                                                        \
	SEC("cgroup/" #attach) int exit_##attach(struct bpf_sock_addr *ctx)                        \
	{                                                                                          \
		(void)ctx;                                                                         \
		return 1;                                                                          \
	}

EXIT(connect4)
EXIT(connect6)
EXIT(sendmsg4)
EXIT(sendmsg6)
EXIT(bind4)
EXIT(bind6)
EXIT_ALWAYS(recvmsg4)
EXIT_ALWAYS(recvmsg6)
EXIT_ALWAYS(getpeername4)
EXIT_ALWAYS(getpeername6)

SEC("cgroup/sock_release") int exit_sock_release(struct bpf_sock *ctx)
{
	(void)ctx;
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
