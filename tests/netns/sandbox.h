/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A private network and mount namespace for one criterion test, with a bpffs of its own.
 *
 * Everything made in it vanishes with the test's process; only cgroups have to be removed.
 */
#ifndef TESTS_NETNS_SANDBOX_H
#define TESTS_NETNS_SANDBOX_H

#include <criterion/criterion.h>

#include <mntent.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <uv.h>

#include <base/base.h>

#define SANDBOX_BPFFS "/sys/fs/bpf"
#define SANDBOX_DEADLINE_NS 5000000000ULL

/* Runs a shell command that must succeed. */
PB_PRINTF(1, 2) static inline void sh(const char *fmt, ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	cr_assert_eq(system(command), 0, "%s", command);
}

/* Skips the test where the machine doesn't allow a sandbox. */
static inline void sandbox_enter(void)
{
	if (geteuid() != 0)
		cr_skip_test("needs root for a network namespace and BPF");
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
		cr_skip_test("unshare: %s", strerror(errno));
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	if (mount("bpf", SANDBOX_BPFFS, "bpf", 0, "mode=0700") < 0)
		cr_skip_test("mounting a bpffs: %s", strerror(errno));
	mkdir("/run/netns", 0755);
	cr_assert_eq(mount("tmpfs", "/run/netns", "tmpfs", 0, "mode=0755"), 0);
	sh("ip link set lo up");
}

static inline void sandbox_tick(uv_timer_t *timer)
{
	(void)timer;
}

/* Turns the loop until the condition holds; fails the test at the deadline. */
static inline void run_until(uv_loop_t *loop, bool (*holds)(void *arg), void *arg)
{
	uint64_t deadline = pb_now_ns() + SANDBOX_DEADLINE_NS;
	uv_timer_t timer;

	uv_timer_init(loop, &timer);
	uv_timer_start(&timer, sandbox_tick, 5, 5);
	while (!holds(arg)) {
		cr_assert_lt(pb_now_ns(), deadline, "the condition didn't come true in time");
		uv_run(loop, UV_RUN_ONCE);
	}
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(loop, UV_RUN_NOWAIT);
}

/* Makes a cgroup below this machine's cgroup2 mount; "" where there is none. */
static inline void sandbox_cgroup(char *path, size_t len)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	const struct mntent *m;

	path[0] = '\0';
	while (mounts && (m = getmntent(mounts)))
		if (strcmp(m->mnt_type, "cgroup2") == 0)
			snprintf(path, len, "%s/patchbay-test-%d", m->mnt_dir, getpid());
	if (mounts)
		endmntent(mounts);
	if (path[0] && mkdir(path, 0755) < 0)
		path[0] = '\0';
}

#endif
