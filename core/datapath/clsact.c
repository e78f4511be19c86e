/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs attached as clsact filters, for kernels without TCX.
 *
 * A filter can't be pinned and outlives the process by itself, so pins beside it remember what
 * is ours: clsact_<hook>_<ifindex> is the program of our filter, next_<hook>_<ifindex> the one
 * that is about to replace it (a crash in between leaves both), and the directory
 * qdisc_<ifindex> says that we made the qdisc. A filter whose program is neither is somebody
 * else's and is never touched.
 */
#include <datapath/attach.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/pkt_sched.h>
#include <sys/stat.h>

#include <datapath/datapath.h>
#include <datapath/netlink.h>

static struct bpf_tc_hook hook_of(const struct pb_place *place)
{
	bool in = place->hook == PB_HOOK_POD_EGRESS || place->hook == PB_HOOK_DEV_INGRESS;

	return (struct bpf_tc_hook){
		.sz = sizeof(struct bpf_tc_hook),
		.ifindex = (int)place->ifindex,
		.attach_point = in ? BPF_TC_INGRESS : BPF_TC_EGRESS,
	};
}

static struct bpf_tc_hook both_hooks(uint32_t ifindex)
{
	return (struct bpf_tc_hook){
		.sz = sizeof(struct bpf_tc_hook),
		.ifindex = (int)ifindex,
		.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS,
	};
}

/* Number of the program at our priority and handle; 0: none. */
static uint32_t filter_prog_id(const struct pb_place *place)
{
	struct bpf_tc_hook hook = hook_of(place);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = PB_TC_HANDLE, .priority = PB_TC_PRIORITY);

	return bpf_tc_query(&hook, &opts) < 0 ? 0 : opts.prog_id;
}

static uint32_t pinned_prog_id(const char *pin)
{
	PB_CLOSE int fd = bpf_obj_get(pin);

	return fd < 0 ? 0 : pb_prog_id(fd);
}

static bool is_ours(const char *pin, const char *next, uint32_t prog_id)
{
	return prog_id && (pinned_prog_id(pin) == prog_id || pinned_prog_id(next) == prog_id);
}

static int qdisc_make(const struct pb_place *place, struct pb_err *err)
{
	struct bpf_tc_hook both = both_hooks(place->ifindex);
	PB_FREE char *mark = pb_sprintf("%s/qdisc_%u", place->dir, place->ifindex);
	char where[96];
	int rc;

	if (!mark)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = bpf_tc_hook_create(&both);
	if (rc == -EEXIST)
		return 0;
	if (rc < 0)
		return pb_err_set(err, rc == -ENODEV ? -ENOLINK : rc,
				  "%s: making the clsact qdisc: %s",
				  pb_place_str(place, where, sizeof(where)), strerror(-rc));
	if (mkdir(mark, 0700) < 0 && errno != EEXIST)
		return pb_err_set(err, -errno, "%s: %s; is a bpffs mounted there?", mark,
				  strerror(errno));
	return 0;
}

static int filter_put(const struct pb_place *place, bool replace, int prog_fd, struct pb_err *err)
{
	struct bpf_tc_hook hook = hook_of(place);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = PB_TC_HANDLE, .priority = PB_TC_PRIORITY,
		    .prog_fd = prog_fd, .flags = replace ? BPF_TC_F_REPLACE : 0);
	int rc = bpf_tc_attach(&hook, &opts);
	char where[96];

	if (rc == 0)
		return 0;
	return pb_err_set(err,
			  rc == -EEXIST	  ? -EBUSY
			  : rc == -ENODEV ? -ENOLINK
					  : rc,
			  "%s: attaching the entry program at priority %d: %s",
			  pb_place_str(place, where, sizeof(where)), PB_TC_PRIORITY, strerror(-rc));
}

static int attach_with_pins(const struct pb_place *place, const char *pin, const char *next,
			    int prog_fd, struct pb_err *err)
{
	uint32_t there = filter_prog_id(place);
	char where[96];
	int rc;

	pb_place_str(place, where, sizeof(where));
	if (there && !is_ours(pin, next, there))
		return pb_err_set(
			err, -EBUSY,
			"%s: program %u of somebody else is at priority %d, handle %d; is "
			"a second agent attached there?",
			where, there, PB_TC_PRIORITY, PB_TC_HANDLE);
	if (there == pb_prog_id(prog_fd) && pinned_prog_id(pin) == there)
		return 0;
	/* A crash after the last replacement left the pin of what is attached under its new name.
	 */
	if (there && pinned_prog_id(next) == there && rename(next, pin) < 0)
		return pb_err_set(err, -errno, "%s: %s", pin, strerror(errno));
	unlink(next);
	if (bpf_obj_pin(prog_fd, next) < 0)
		return pb_err_set(err, -errno, "%s: pinning %s: %s; is a bpffs mounted there?",
				  where, next, strerror(errno));
	rc = filter_put(place, there != 0, prog_fd, err);
	if (rc < 0) {
		unlink(next);
		return rc;
	}
	if (rename(next, pin) < 0)
		return pb_err_set(err, -errno, "%s: %s", pin, strerror(errno));
	return 0;
}

int pb_clsact_attach(const struct pb_place *place, int prog_fd, struct pb_err *err)
{
	PB_FREE char *pin = pb_place_pin(place, "clsact_");
	PB_FREE char *next = pb_place_pin(place, "next_");
	int rc;

	if (!pin || !next)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = qdisc_make(place, err);
	return rc < 0 ? rc : attach_with_pins(place, pin, next, prog_fd, err);
}

int pb_clsact_check(const struct pb_place *place, uint32_t prog_id)
{
	uint32_t there = filter_prog_id(place);

	return there == prog_id ? 0 : there ? -EBUSY : -ENOENT;
}

int pb_clsact_detach(const struct pb_place *place, struct pb_err *err)
{
	struct bpf_tc_hook hook = hook_of(place);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = PB_TC_HANDLE, .priority = PB_TC_PRIORITY);
	PB_FREE char *pin = pb_place_pin(place, "clsact_");
	PB_FREE char *next = pb_place_pin(place, "next_");
	char where[96];
	int rc = 0;

	if (!pin || !next)
		return pb_err_set(err, -ENOMEM, "out of memory");
	if (is_ours(pin, next, filter_prog_id(place)))
		rc = bpf_tc_detach(&hook, &opts);
	if (rc < 0)
		return pb_err_set(err, rc, "%s: removing the filter: %s",
				  pb_place_str(place, where, sizeof(where)), strerror(-rc));
	unlink(next);
	if (unlink(pin) < 0 && errno != ENOENT)
		return pb_err_set(err, -errno, "%s: %s", pin, strerror(errno));
	return 0;
}

void pb_clsact_release(const char *dir, uint32_t ifindex)
{
	struct bpf_tc_hook both = both_hooks(ifindex);
	PB_FREE char *mark = pb_sprintf("%s/qdisc_%u", dir, ifindex);
	PB_NL_CLOSE struct mnl_socket *nl = NULL;
	static const uint32_t parents[] = {
		TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS),
		TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS),
	};
	int filters = 0;

	if (!mark || access(mark, F_OK) < 0 || pb_nl_open(&nl, NULL) < 0)
		return;
	for (size_t i = 0; i < PB_ARRAY_LEN(parents) && filters >= 0; i++) {
		int n = pb_nl_filter_count(nl, ifindex, parents[i]);

		filters = n < 0 ? n : filters + n;
	}
	if (filters == 0)
		bpf_tc_hook_destroy(&both);
	rmdir(mark);
}
