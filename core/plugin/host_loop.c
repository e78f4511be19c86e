/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers, file descriptors and work of plugins, on libuv.
 *
 * Owns every loop handle that a plugin asked for. A handle's memory is the core's and is freed
 * by its close callback, so a generation can be unmapped while handles are still closing. While
 * a generation's events are held nothing here calls it; what became due is delivered on release.
 */
#include <plugin/private.h>

/* ---- timers ---- */

static void timer_closed(uv_handle_t *handle)
{
	struct pb_manager *m = handle->data;

	free(PB_CONTAINER_OF(handle, struct pb_host_timer, uv));
	m->handles--;
	pb_manager_check_closed(m);
}

static void timer_remove(struct pb_host_timer *t)
{
	struct pb_manager *m = t->gen->manager;

	DL_DELETE(t->gen->timers, t);
	t->uv.data = m;
	uv_close((uv_handle_t *)&t->uv, timer_closed);
}

static struct pb_host_timer *timer_find(struct pb_generation *gen, uint32_t id)
{
	struct pb_host_timer *t;

	DL_FOREACH (gen->timers, t) {
		if (t->id == id)
			return t;
	}
	return NULL;
}

static void timer_fire(struct pb_host_timer *t)
{
	struct pb_generation *gen = t->gen;
	pb_timer_fn fn = t->fn;
	void *arg = t->arg;
	struct pb_call call;

	t->due = false;
	if (t->repeat_ms == 0)
		timer_remove(t);
	pb_call_enter(gen, PB_STEP_TIMER, &call);
	fn(&gen->ctx, arg);
	pb_call_leave(gen, PB_STEP_TIMER, &call);
}

static void on_timer(uv_timer_t *uv)
{
	struct pb_host_timer *t = PB_CONTAINER_OF(uv, struct pb_host_timer, uv);

	if (t->gen->hold_events)
		t->due = true;
	else
		timer_fire(t);
}

static bool may_wait(const struct pb_generation *gen)
{
	return gen->state >= PB_GEN_PREPARING && gen->state <= PB_GEN_QUIESCED;
}

/*
 * The loop's clock stands still during a turn. A delay counts from now all the same, but the
 * clock isn't moved for it: libuv before 1.45 would then run the timer in this very turn, and a
 * plugin that works in short turns would never let go of the loop.
 */
static uint64_t from_now(const uv_loop_t *loop, uint64_t delay_ms)
{
	uint64_t now = pb_now_ns() / 1000000, clock = uv_now(loop);

	return delay_ms + (now > clock ? now - clock : 0);
}

int pb_host_timer_start(struct pb_ctx *ctx, uint64_t delay_ms, uint64_t repeat_ms, pb_timer_fn fn,
			void *arg, uint32_t *ret_id)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_host_timer *t;

	if (!may_wait(gen))
		return pb_host_wrong_step(gen, "timer_start()", "before stop()");
	t = fn ? calloc(1, sizeof(*t)) : NULL;
	if (!t)
		return fn ? -ENOMEM : -EINVAL;
	*t = (struct pb_host_timer){
		.gen = gen, .id = ++gen->next_timer, .repeat_ms = repeat_ms, .fn = fn, .arg = arg};
	uv_timer_init(gen->manager->env.loop, &t->uv);
	gen->manager->handles++;
	DL_APPEND(gen->timers, t);
	uv_timer_start(&t->uv, on_timer, from_now(t->uv.loop, delay_ms), repeat_ms);
	if (ret_id)
		*ret_id = t->id;
	return 0;
}

int pb_host_timer_stop(struct pb_ctx *ctx, uint32_t id)
{
	struct pb_host_timer *t = timer_find(pb_gen(ctx), id);

	if (!t)
		return -ENOENT;
	timer_remove(t);
	return 0;
}

/* Timers may stop one another while they are delivered, so the list is searched anew. */
static void timers_release(struct pb_generation *gen)
{
	struct pb_host_timer *t = gen->timers;

	while (t) {
		if (t->due) {
			timer_fire(t);
			t = gen->timers;
		} else {
			t = t->next;
		}
	}
}

/* ---- file descriptors ---- */

static void fd_closed(uv_handle_t *handle)
{
	struct pb_manager *m = handle->data;

	free(PB_CONTAINER_OF(handle, struct pb_host_fd, uv));
	m->handles--;
	pb_manager_check_closed(m);
}

static void fd_remove(struct pb_host_fd *f)
{
	struct pb_manager *m = f->gen->manager;

	DL_DELETE(f->gen->fds, f);
	uv_poll_stop(&f->uv);
	f->uv.data = m;
	uv_close((uv_handle_t *)&f->uv, fd_closed);
}

static struct pb_host_fd *fd_find(struct pb_generation *gen, int fd)
{
	struct pb_host_fd *f;

	DL_FOREACH (gen->fds, f) {
		if (f->fd == fd)
			return f;
	}
	return NULL;
}

static void on_fd(uv_poll_t *uv, int status, int events)
{
	struct pb_host_fd *f = PB_CONTAINER_OF(uv, struct pb_host_fd, uv);
	uint32_t what = 0;
	struct pb_call call;

	if (events & UV_READABLE)
		what |= PB_FD_READ;
	if (events & UV_WRITABLE)
		what |= PB_FD_WRITE;
	if (status < 0 || (events & UV_DISCONNECT))
		what |= PB_FD_GONE;
	pb_call_enter(f->gen, PB_STEP_FD, &call);
	f->fn(&f->gen->ctx, f->arg, f->fd, what);
	pb_call_leave(f->gen, PB_STEP_FD, &call);
}

static int fd_poll(struct pb_host_fd *f)
{
	int events = UV_DISCONNECT;

	if (f->events & PB_FD_READ)
		events |= UV_READABLE;
	if (f->events & PB_FD_WRITE)
		events |= UV_WRITABLE;
	return uv_poll_start(&f->uv, events, on_fd);
}

int pb_host_fd_watch(struct pb_ctx *ctx, int fd, uint32_t events, pb_fd_fn fn, void *arg)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_host_fd *f;
	int rc;

	if (!may_wait(gen))
		return pb_host_wrong_step(gen, "fd_watch()", "before stop()");
	if (fd < 0 || !fn || (events & ~(PB_FD_READ | PB_FD_WRITE | PB_FD_GONE)))
		return pb_err_set(&gen->fail, -EINVAL, "fd_watch(): bad fd, events or function");
	if (fd_find(gen, fd))
		return pb_err_set(&gen->fail, -EEXIST, "fd_watch(): fd %d is watched already", fd);
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	*f = (struct pb_host_fd){.gen = gen, .fd = fd, .events = events, .fn = fn, .arg = arg};
	rc = uv_poll_init(gen->manager->env.loop, &f->uv, fd);
	if (rc < 0) {
		free(f);
		return pb_err_set(&gen->fail, rc, "fd_watch(): fd %d: %s", fd, strerror(-rc));
	}
	gen->manager->handles++;
	DL_APPEND(gen->fds, f);
	return gen->hold_events ? 0 : fd_poll(f);
}

int pb_host_fd_unwatch(struct pb_ctx *ctx, int fd)
{
	struct pb_host_fd *f = fd_find(pb_gen(ctx), fd);

	if (!f)
		return -ENOENT;
	fd_remove(f);
	return 0;
}

/* ---- work ---- */

static void work_free(struct pb_host_work *w)
{
	DL_DELETE(w->gen->works, w);
	free(w);
}

static void work_done(struct pb_host_work *w, int result)
{
	struct pb_generation *gen = w->gen;
	pb_done_fn done = w->done;
	void *arg = w->arg;
	struct pb_call call;

	work_free(w);
	if (!done)
		return;
	pb_call_enter(gen, PB_STEP_DONE, &call);
	done(&gen->ctx, arg, result);
	pb_call_leave(gen, PB_STEP_DONE, &call);
}

static void on_work(uv_work_t *uv)
{
	struct pb_host_work *w = PB_CONTAINER_OF(uv, struct pb_host_work, uv);
	struct pb_crash_call saved;

	/* Work may take long, that is what it is for: no deadline. */
	pb_crash_enter(w->gen->culprit, PB_STEP_WORK, pb_now_ns(), false, &saved);
	w->result = w->fn(w->arg);
	pb_crash_leave(&saved);
}

static void works_start(struct pb_manager *m);

static void after_work(uv_work_t *uv, int status)
{
	struct pb_host_work *w = PB_CONTAINER_OF(uv, struct pb_host_work, uv);
	struct pb_generation *gen = w->gen;
	struct pb_manager *m = gen->manager;

	gen->works_running--;
	m->works_running--;
	m->handles--;
	w->finished = true;
	if (status == UV_ECANCELED)
		w->result = -ECANCELED;
	if (gen->state == PB_GEN_RETIRING) {
		work_done(w, -ECANCELED);
		pb_gen_linger_check(gen);
	} else if (!gen->hold_events) {
		work_done(w, w->result);
	}
	works_start(m);
	pb_manager_check_closed(m);
}

/* Work that finds no place stays in the generation's list until another work function ends. */
static void work_queue(struct pb_host_work *w)
{
	struct pb_manager *m = w->gen->manager;

	if (m->works_running >= PB_WORKS_MAX)
		return;
	w->queued = true;
	if (uv_queue_work(m->env.loop, &w->uv, on_work, after_work) < 0) {
		w->finished = true;
		w->result = -ENOMEM;
		return;
	}
	w->gen->works_running++;
	m->works_running++;
	m->handles++;
}

static void works_start(struct pb_manager *m)
{
	struct pb_plugin_entry *p;
	struct pb_host_work *w;

	LL_FOREACH (m->plugins, p) {
		if (!p->live || p->live->hold_events)
			continue;
		DL_FOREACH (p->live->works, w) {
			if (!w->queued)
				work_queue(w);
		}
	}
}

int pb_host_work_start(struct pb_ctx *ctx, pb_work_fn fn, pb_done_fn done, void *arg)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_host_work *w;

	if (!may_wait(gen))
		return pb_host_wrong_step(gen, "work()", "before stop()");
	w = fn ? calloc(1, sizeof(*w)) : NULL;
	if (!w)
		return fn ? -ENOMEM : -EINVAL;
	*w = (struct pb_host_work){.gen = gen, .fn = fn, .done = done, .arg = arg};
	DL_APPEND(gen->works, w);
	if (!gen->hold_events)
		work_queue(w);
	return 0;
}

static struct pb_host_work *work_finished(struct pb_generation *gen)
{
	struct pb_host_work *w;

	DL_FOREACH (gen->works, w) {
		if (w->finished)
			return w;
	}
	return NULL;
}

static void works_release(struct pb_generation *gen)
{
	struct pb_host_work *w;

	while ((w = work_finished(gen)))
		work_done(w, w->result);
	DL_FOREACH (gen->works, w) {
		if (!w->queued)
			work_queue(w);
	}
}

void pb_host_work_cancel(struct pb_generation *gen)
{
	struct pb_host_work *w;

	DL_FOREACH (gen->works, w) {
		if (!w->queued)
			w->finished = true;
	}
	while ((w = work_finished(gen)))
		work_done(w, -ECANCELED);
}

/* ---- all three ---- */

void pb_host_loop_hold(struct pb_generation *gen)
{
	struct pb_host_fd *f;

	DL_FOREACH (gen->fds, f)
		uv_poll_stop(&f->uv);
}

void pb_host_loop_release(struct pb_generation *gen)
{
	struct pb_host_fd *f;

	timers_release(gen);
	works_release(gen);
	DL_FOREACH (gen->fds, f)
		fd_poll(f);
}

void pb_host_loop_leaks(struct pb_generation *gen)
{
	unsigned timers = 0, fds = 0;
	struct pb_host_timer *t;
	struct pb_host_fd *f;

	DL_FOREACH (gen->timers, t)
		timers++;
	DL_FOREACH (gen->fds, f)
		fds++;
	if (timers || fds)
		snprintf(gen->leak, sizeof(gen->leak),
			 "generation %u left %u timer%s and %u watched fd%s behind after stop()",
			 gen->number, timers, timers == 1 ? "" : "s", fds, fds == 1 ? "" : "s");
}

void pb_host_loop_free(struct pb_generation *gen)
{
	struct pb_host_work *w, *tmp;

	while (gen->timers)
		timer_remove(gen->timers);
	while (gen->fds)
		fd_remove(gen->fds);
	DL_FOREACH_SAFE(gen->works, w, tmp)
	work_free(w);
}
