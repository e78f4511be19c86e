/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an event loop would do: ring events, timers, file descriptors, work.
 *
 * Owns the clock, which moves only when a test says so. Nothing here may wait for anything: a
 * callback runs when the test makes it due.
 */
#include <poll.h>
#include <stdatomic.h>

#include "fake.h"

#define FAKE_START_NS (3600ULL * 1000000000ULL)
#define FAKE_EVENT_TYPES 256

/* One clock for the process: host->now_ns() has no argument that could say whose. */
static atomic_uint_least64_t fake_now_ns = FAKE_START_NS;

/* ---- ring events ----------------------------------------------------------------------- */

int fake_host_event_type(struct pb_ctx *ctx, const char *name, uint16_t *ret_type)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "event_type");
	uint16_t number = FAKE_EVENT_TYPES;
	struct fake_event_type *type;

	if (err == 0)
		err = fake_prepare_only(gen, "event_type");
	if (err < 0)
		return err;
	LL_FOREACH (gen->fake->event_types, type) {
		if (strcmp(type->name, name) == 0)
			break;
		number++;
	}
	if (!type) {
		type = calloc(1, sizeof(*type));
		if (!type)
			return -ENOMEM;
		type->name = strdup(name);
		if (!type->name) {
			free(type);
			return -ENOMEM;
		}
		LL_APPEND(gen->fake->event_types, type);
	}
	*ret_type = number;
	return 0;
}

int fake_host_event_subscribe(struct pb_ctx *ctx, uint16_t type, pb_event_fn fn, void *arg)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "event_subscribe");
	struct fake_event_sub *sub;

	if (err < 0)
		return err;
	sub = calloc(1, sizeof(*sub));
	if (!sub)
		return -ENOMEM;
	*sub = (struct fake_event_sub){.type = type, .fn = fn, .arg = arg};
	LL_APPEND(gen->event_subs, sub);
	return 0;
}

int pb_fake_event(struct pb_fake *fake, const struct pb_event *event)
{
	struct fake_gen *gen = fake->current;
	struct fake_event_sub *sub, *next;
	int n = 0;

	/* Ring events of a quiesced generation are lost, as they would be in a full ring. */
	if (!gen || gen->phase != FAKE_RUNNING)
		return 0;
	LL_FOREACH_SAFE(gen->event_subs, sub, next)
	{
		if (sub->type != event->type)
			continue;
		sub->fn(&gen->ctx, sub->arg, event);
		n++;
	}
	fake_drain(fake);
	return n;
}

/* ---- timers ---------------------------------------------------------------------------- */

int fake_host_timer_start(struct pb_ctx *ctx, uint64_t delay_ms, uint64_t repeat_ms, pb_timer_fn fn,
			  void *arg, uint32_t *ret_id)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "timer_start");
	struct fake_timer *timer;

	if (err < 0)
		return err;
	timer = calloc(1, sizeof(*timer));
	if (!timer)
		return -ENOMEM;
	*timer = (struct fake_timer){
		.id = ++gen->fake->timer_ids,
		.due_ns = pb_fake_now_ns() + delay_ms * 1000000,
		.repeat_ns = repeat_ms * 1000000,
		.fn = fn,
		.arg = arg,
	};
	LL_APPEND(gen->timers, timer);
	if (ret_id)
		*ret_id = timer->id;
	return 0;
}

static struct fake_timer *timer_find(const struct fake_gen *gen, uint32_t id)
{
	struct fake_timer *timer;

	LL_FOREACH (gen->timers, timer)
		if (timer->id == id)
			return timer;
	return NULL;
}

int fake_host_timer_stop(struct pb_ctx *ctx, uint32_t id)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	struct fake_timer *timer = timer_find(gen, id);

	if (!timer)
		return -ENOENT;
	LL_DELETE(gen->timers, timer);
	free(timer);
	return 0;
}

static struct fake_timer *timer_due(const struct fake_gen *gen, uint64_t until_ns)
{
	struct fake_timer *timer, *first = NULL;

	LL_FOREACH (gen->timers, timer)
		if (timer->due_ns <= until_ns && (!first || timer->due_ns < first->due_ns))
			first = timer;
	return first;
}

static void timer_fire(struct fake_gen *gen, struct fake_timer *timer)
{
	struct fake_timer copy = *timer;

	/* The callback may stop its own timer, so that nothing of it is touched afterwards. */
	if (timer->repeat_ns)
		timer->due_ns += timer->repeat_ns;
	else
		fake_host_timer_stop(&gen->ctx, timer->id);
	copy.fn(&gen->ctx, copy.arg);
}

void pb_fake_advance_ms(struct pb_fake *fake, uint64_t ms)
{
	uint64_t until = pb_fake_now_ns() + ms * 1000000;
	struct fake_timer *timer;

	while (fake->current && fake->current->phase == FAKE_RUNNING &&
	       (timer = timer_due(fake->current, until))) {
		if (timer->due_ns > pb_fake_now_ns())
			atomic_store(&fake_now_ns, timer->due_ns);
		timer_fire(fake->current, timer);
		fake_drain(fake);
	}
	atomic_store(&fake_now_ns, until);
}

uint64_t pb_fake_now_ns(void)
{
	return atomic_load(&fake_now_ns);
}

uint32_t pb_fake_timers(const struct pb_fake *fake)
{
	struct fake_timer *timer;
	uint32_t n = 0;

	if (fake->current)
		LL_COUNT(fake->current->timers, timer, n);
	return n;
}

/* ---- fds and work ---------------------------------------------------------------------- */

static struct fake_fd *fd_find(const struct fake_gen *gen, int fd)
{
	struct fake_fd *watch;

	LL_FOREACH (gen->fds, watch)
		if (watch->fd == fd)
			return watch;
	return NULL;
}

int fake_host_fd_watch(struct pb_ctx *ctx, int fd, uint32_t events, pb_fd_fn fn, void *arg)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "fd_watch");
	struct fake_fd *watch;

	if (err < 0)
		return err;
	if (fd_find(gen, fd))
		return -EEXIST;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return -ENOMEM;
	*watch = (struct fake_fd){.fd = fd, .events = events, .fn = fn, .arg = arg};
	LL_APPEND(gen->fds, watch);
	return 0;
}

int fake_host_fd_unwatch(struct pb_ctx *ctx, int fd)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	struct fake_fd *watch = fd_find(gen, fd);

	if (!watch)
		return -ENOENT;
	LL_DELETE(gen->fds, watch);
	free(watch);
	return 0;
}

int pb_fake_fd(struct pb_fake *fake, int fd, uint32_t events)
{
	struct fake_gen *gen = fake->current;
	struct fake_fd *watch = gen ? fd_find(gen, fd) : NULL;

	if (!watch || !(events & (watch->events | PB_FD_GONE)))
		return -ENOENT;
	watch->fn(&gen->ctx, watch->arg, fd, events);
	fake_drain(fake);
	return 0;
}

static short poll_events(uint32_t events)
{
	return (short)((events & PB_FD_READ ? POLLIN : 0) | (events & PB_FD_WRITE ? POLLOUT : 0));
}

int pb_fake_poll(struct pb_fake *fake, int timeout_ms)
{
	struct pollfd fds[256];
	struct fake_fd *watch;
	nfds_t n = 0;
	int told = 0;

	if (fake->current && fake->current->phase == FAKE_RUNNING)
		LL_FOREACH (fake->current->fds, watch)
			if (n < 256)
				fds[n++] = (struct pollfd){.fd = watch->fd,
							   .events = poll_events(watch->events)};
	if (poll(fds, n, timeout_ms) <= 0)
		return 0;
	for (nfds_t i = 0; i < n; i++) {
		uint32_t events =
			(fds[i].revents & POLLIN ? PB_FD_READ : 0) |
			(fds[i].revents & POLLOUT ? PB_FD_WRITE : 0) |
			(fds[i].revents & (POLLERR | POLLHUP | POLLNVAL) ? PB_FD_GONE : 0);

		/* One callback may unwatch what the next one would be told of. */
		if (events && pb_fake_fd(fake, fds[i].fd, events) == 0)
			told++;
	}
	return told;
}

int fake_host_work(struct pb_ctx *ctx, pb_work_fn fn, pb_done_fn done, void *arg)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "work");
	struct fake_task *task;

	if (err < 0)
		return err;
	task = fake_task_add(gen, FAKE_TASK_WORK);
	if (!task)
		return -ENOMEM;
	task->work = fn;
	task->done = done;
	task->arg = arg;
	return 0;
}
