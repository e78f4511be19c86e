/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A private place for tests of the kernel side: own mounts, own network, own bpffs, own agent.
 *
 * Everything disappears with the test's process. Nothing outside is touched.
 */
#ifndef PB_TESTS_SANDBOX_H
#define PB_TESTS_SANDBOX_H

#include <sched.h>

#include <criterion/criterion.h>

#include <datapath/internal.h>

#include "packet.h"

struct sandbox {
	uv_loop_t loop;
	struct pb_config config;
	struct pb_dp *dp;
	struct pb_err err;
};
extern struct sandbox sandbox;

/* Skips the test with a reason when it isn't run by root. */
void sandbox_enter(void);
void sandbox_leave(void);
void sandbox_open(void);  /* pb_dp_open() */
void sandbox_close(void); /* pb_dp_close(), and runs the loop until it is done */

/* The test object, registered for `plugin` and prepared. */
struct pb_dp_object *sandbox_stages(const char *plugin);
/* Any other object in the same way. */
struct pb_dp_object *sandbox_object(const char *plugin, const char *name, const void *elf,
				    size_t len);
/* A slot of program `program` on `hook`, named after the program. */
struct pb_dp_slot sandbox_slot(uint32_t hook, uint32_t band, struct pb_dp_object *object,
			       const char *name, const char *program);
/* Builds, flips, retires. */
void sandbox_chain(const struct pb_dp_slot *slots, size_t n, uint32_t hook);

/* Runs a hook's entry on a frame; returns what the chain returned, as a signed number. */
int sandbox_run(uint32_t hook, const void *frame, size_t len);
/* The same for a packet, with what the program sees besides and the packet that comes out. */
int sandbox_packet(uint32_t hook, const struct packet *in, struct packet_ctx *ctx,
		   struct packet *ret_out);
/* This CPU's record of the hook's last packet. */
struct pb_packet sandbox_record(uint32_t hook);
/* The hook's counters and one reason's drops, summed over CPUs. */
struct pb_counters sandbox_counters(uint32_t hook);
uint64_t sandbox_drops(uint32_t hook, uint32_t reason);

#endif
