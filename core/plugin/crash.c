/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Turns a plugin's crash or hang into a fresh agent that knows the culprit.
 *
 * Owns the marker page, the handlers of fatal signals and the watchdog thread; being about the
 * process as a whole they are its global state. Between a fatal signal and the execve() only
 * functions that are safe in a signal handler are called: no memory, no locks, no log.
 */
#include <plugin/manager.h>

#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include <base/log.h>
#include <plugin/crash.h>
#include <plugin/crash_page.h>

#define CORE_WAIT_MS 3000
#define ALT_STACK_SIZE 65536

static struct crash {
	struct pb_crash_page *page; /* mapped, or fallback without pb_crash_setup() */
	struct pb_crash_page fallback;
	_Atomic uint32_t n_threads;
	_Atomic uint32_t dying;
	int lock_fd; /* open as long as the process lives */
	char **argv;
	sigset_t mask; /* as at the start, for the next process */
	uint64_t deadline_ns;
	pthread_t watchdog;
	bool watching, stop;
	pthread_mutex_t lock;
	pthread_cond_t wake;
} crash = {.lock = PTHREAD_MUTEX_INITIALIZER};

static __thread uint32_t thread_slot; /* number + 1 */

extern char **environ;

static struct pb_crash_page *the_page(void)
{
	return crash.page ? crash.page : &crash.fallback;
}

static const char *const step_names[PB_STEP_COUNT] = {
	[PB_STEP_NONE] = "no callback",
	[PB_STEP_DLOPEN] = "dlopen()",
	[PB_STEP_PREPARE] = "prepare()",
	[PB_STEP_QUIESCE] = "quiesce()",
	[PB_STEP_SAVE] = "save()",
	[PB_STEP_RESTORE] = "restore()",
	[PB_STEP_START] = "start()",
	[PB_STEP_RESUME] = "resume()",
	[PB_STEP_STOP] = "stop()",
	[PB_STEP_RECONFIGURE] = "reconfigure()",
	[PB_STEP_TOPIC] = "a topic callback",
	[PB_STEP_KUBE] = "a Kubernetes callback",
	[PB_STEP_TIMER] = "a timer callback",
	[PB_STEP_FD] = "an fd callback",
	[PB_STEP_WORK] = "a work function",
	[PB_STEP_DONE] = "a done callback",
	[PB_STEP_EVENT] = "an event callback",
	[PB_STEP_COMMAND] = "a command",
	[PB_STEP_DLCLOSE] = "dlclose()",
};

const char *pb_crash_step_name(enum pb_crash_step step)
{
	return (unsigned)step < PB_STEP_COUNT ? step_names[step] : "an unknown step";
}

struct pb_crash_culprit *pb_crash_culprit_new(const char *plugin, uint64_t hash)
{
	struct pb_crash_page *page = the_page();

	for (unsigned i = 0; i < PB_CRASH_CULPRITS; i++) {
		struct pb_crash_culprit *c = &page->culprits[i];
		uint32_t unused = 0;

		if (!atomic_compare_exchange_strong(&c->used, &unused, 1))
			continue;
		snprintf(c->plugin, sizeof(c->plugin), "%s", plugin);
		c->hash = hash;
		return c;
	}
	return NULL;
}

void pb_crash_culprit_free(struct pb_crash_culprit *culprit)
{
	if (culprit)
		atomic_store(&culprit->used, 0);
}

static struct pb_crash_thread *this_thread(void)
{
	if (thread_slot == 0)
		thread_slot = atomic_fetch_add(&crash.n_threads, 1) + 1;
	return thread_slot <= PB_CRASH_THREADS ? &the_page()->threads[thread_slot - 1] : NULL;
}

void pb_crash_enter(struct pb_crash_culprit *culprit, enum pb_crash_step step, uint64_t now_ns,
		    bool watched, struct pb_crash_call *saved)
{
	struct pb_crash_thread *t = this_thread();

	*saved = (struct pb_crash_call){0};
	if (!t || !culprit)
		return;
	saved->culprit = atomic_load(&t->culprit);
	saved->step = t->step;
	saved->start_ns = t->start_ns;
	/* The watchdog takes a thread for running while `culprit` is set, so that comes last. */
	atomic_store(&t->culprit, 0);
	t->step = step;
	t->start_ns = watched ? now_ns : 0;
	atomic_store(&t->culprit, (uint32_t)(culprit - the_page()->culprits) + 1);
}

void pb_crash_leave(const struct pb_crash_call *saved)
{
	struct pb_crash_thread *t = this_thread();

	if (!t)
		return;
	atomic_store(&t->culprit, 0);
	t->step = saved->step;
	t->start_ns = saved->start_ns;
	atomic_store(&t->culprit, saved->culprit);
}

/* ---- from here on: inside signal handlers ---- */

static void wait_for_core(pid_t child)
{
	const struct timespec ms = {.tv_nsec = 1000000};

	for (int i = 0; i < CORE_WAIT_MS && waitpid(child, NULL, WNOHANG) == 0; i++)
		nanosleep(&ms, NULL);
}

/* A child dies in our place, so that the core file shows the moment. */
static void dump_core(int sig)
{
	struct rlimit limit;
	sigset_t none;
	pid_t child;

	if (getrlimit(RLIMIT_CORE, &limit) < 0 || limit.rlim_cur == 0)
		return;
	child = _Fork();
	if (child > 0)
		wait_for_core(child);
	if (child != 0)
		return;
	/* Locks on the bpffs and run directories must not live on in the child. */
	close_range(3, ~0U, 0);
	signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	raise(sig);
	_exit(1);
}

static void say(const char *s)
{
	if (write(2, s, strlen(s)) < 0)
		return;
}

static void restart(const struct pb_crash_thread *t, uint32_t cause, int sig)
{
	struct pb_crash_page *page = crash.page;
	uint32_t culprit = atomic_load(&t->culprit);

	/* Another thread is on its way to execve(), which ends this one. */
	while (atomic_exchange(&crash.dying, 1))
		pause();
	page->culprit = culprit;
	page->step = t->step;
	page->deadline_ms = (uint32_t)(crash.deadline_ns / 1000000);
	atomic_store(&page->cause, cause);
	dump_core(sig);
	say("patchbayd: a callback of plugin ");
	say(page->culprits[culprit - 1].plugin);
	say(cause == PB_CRASH_HANG ? " hangs; restarting\n" : " crashed; restarting\n");
	close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
	pthread_sigmask(SIG_SETMASK, &crash.mask, NULL);
	execve("/proc/self/exe", crash.argv, environ);
	say("patchbayd: can't execute itself\n");
	_exit(127);
}

static void on_fatal(int sig)
{
	struct pb_crash_thread *t = NULL;

	if (thread_slot > 0 && thread_slot <= PB_CRASH_THREADS)
		t = &the_page()->threads[thread_slot - 1];
	if (t && crash.page && atomic_load(&t->culprit))
		restart(t, (uint32_t)sig, sig);
	/* No plugin's doing: die as without us, the service manager starts the next one. */
	signal(sig, SIG_DFL);
	raise(sig);
}

/* ---- the watchdog ---- */

static void check_thread(struct pb_crash_thread *t)
{
	uint32_t culprit = atomic_load(&t->culprit);
	uint64_t start_ns = t->start_ns;

	if (!culprit || !start_ns || pb_now_ns() - start_ns < crash.deadline_ns)
		return;
	if (atomic_load(&t->culprit) == culprit && t->start_ns == start_ns)
		restart(t, PB_CRASH_HANG, SIGABRT);
}

static void *watchdog(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&crash.lock);
	while (!crash.stop) {
		uint64_t next = pb_now_ns() + crash.deadline_ns / 4;
		struct timespec at = {.tv_sec = (time_t)(next / 1000000000),
				      .tv_nsec = (long)(next % 1000000000)};

		pthread_cond_timedwait(&crash.wake, &crash.lock, &at);
		for (unsigned i = 0; i < PB_CRASH_THREADS && !crash.stop; i++)
			check_thread(&crash.page->threads[i]);
	}
	pthread_mutex_unlock(&crash.lock);
	return NULL;
}

int pb_crash_watch(unsigned deadline_ms, struct pb_err *err)
{
	pthread_condattr_t attr;
	sigset_t all, old;
	int rc;

	if (!crash.page || crash.watching)
		return 0;
	crash.deadline_ns = (uint64_t)deadline_ms * 1000000;
	crash.stop = false;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&crash.wake, &attr);
	pthread_condattr_destroy(&attr);
	/* Signals belong to the loop thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&crash.watchdog, NULL, watchdog, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0)
		return pb_err_set(err, -rc, "the watchdog thread can't be started: %s",
				  strerror(rc));
	crash.watching = true;
	return 0;
}

void pb_crash_unwatch(void)
{
	if (!crash.watching)
		return;
	pthread_mutex_lock(&crash.lock);
	crash.stop = true;
	pthread_cond_signal(&crash.wake);
	pthread_mutex_unlock(&crash.lock);
	pthread_join(crash.watchdog, NULL);
	pthread_cond_destroy(&crash.wake);
	crash.watching = false;
}

/* ---- set-up ---- */

/* The page and the copies of plugins belong to one process; its end unlocks them. */
static int lock_page(int fd, const char *run_dir, struct pb_err *err)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return pb_err_set(err, -EBUSY,
				  "agent.run_dir: another agent uses %s; stop it, or give this one "
				  "its own agent.run_dir, control.socket and datapath.bpffs",
				  run_dir);
	return pb_err_set(err, -errno, "%s: can't be locked: %s", run_dir, strerror(errno));
}

static int map_page(const char *path, const char *run_dir, struct pb_err *err)
{
	PB_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	void *p;
	int rc;

	if (fd < 0)
		return pb_err_set(err, -errno, "%s: %s%s", path, strerror(errno),
				  errno == EACCES ? "; run patchbayd as root" : "");
	rc = lock_page(fd, run_dir, err);
	if (rc < 0)
		return rc;
	/* A page of a sparse file on a full disk would end the process by SIGBUS. */
	rc = -posix_fallocate(fd, 0, sizeof(struct pb_crash_page));
	if (rc < 0)
		return pb_err_set(err, rc, "%s: %s", path, strerror(-rc));
	p = mmap(NULL, sizeof(struct pb_crash_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return pb_err_set(err, -errno, "%s: %s", path, strerror(errno));
	crash.page = p;
	crash.lock_fd = PB_TAKE_FD(fd);
	return 0;
}

static void install_handlers(void)
{
	static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
	static char alt_stack[ALT_STACK_SIZE];
	stack_t stack = {.ss_sp = alt_stack, .ss_size = sizeof(alt_stack)};
	struct sigaction act = {.sa_handler = on_fatal, .sa_flags = SA_ONSTACK};

	/* A plugin that overflows the loop's stack leaves none for the handler. */
	sigaltstack(&stack, NULL);
	sigfillset(&act.sa_mask);
	for (size_t i = 0; i < PB_ARRAY_LEN(fatal); i++)
		sigaction(fatal[i], &act, NULL);
}

int pb_crash_setup(int argc, char **argv, const char *run_dir, struct pb_err *err)
{
	PB_FREE char *dir = pb_sprintf("%s/state", run_dir);
	PB_FREE char *path = pb_sprintf("%s/state/marker", run_dir);
	int rc;

	(void)argc;
	if (!dir || !path)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = pb_dir_make_own(dir, 0700, err);
	if (rc == 0)
		rc = map_page(path, run_dir, err);
	if (rc < 0)
		return rc;
	if (pb_crash_page_take(crash.page, run_dir, err) < 0)
		pb_warn("plugin", "a crash of the last agent is not counted: %s", err->text);
	crash.argv = argv;
	pthread_sigmask(SIG_SETMASK, NULL, &crash.mask);
	install_handlers();
	return 0;
}
