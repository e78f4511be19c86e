/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of operations.
 *
 * Owns which operation is next. One runs at a time; the datapath's blocking functions rely on it.
 */
#include <plugin/op.h>

static void op_free(struct pb_op *op)
{
	pb_buf_free(&op->note);
	pb_buf_free(&op->state);
	pb_host_config_free(op->new_config);
	pb_dp_build_free(op->build);
	free(op->plan);
	free(op->name);
	free(op->path);
	free(op->config);
	free(op);
}

static void op_next(struct pb_manager *m)
{
	if (m->op_running || !m->ops)
		return;
	m->op_running = true;
	pb_op_start(m->ops);
}

void pb_op_finish(struct pb_op *op, int rc)
{
	struct pb_manager *m = op->m;

	LL_DELETE(m->ops, op);
	m->finishing = op;
	if (op->done)
		op->done(op->arg, rc, rc < 0 ? op->err.text : "");
	m->finishing = NULL;
	m->op_running = false;
	op_free(op);
	op_next(m);
	pb_manager_check_closed(m);
}

void pb_op_cancel(struct pb_op *op)
{
	LL_DELETE(op->m->ops, op);
	if (op->done)
		op->done(op->arg, -ECANCELED, "the agent is stopping");
	op_free(op);
}

int pb_op_queue(struct pb_manager *m, enum pb_op_kind kind, const char *name, const char *path,
		const char *config, bool explicit, pb_manager_done_fn done, void *arg)
{
	struct pb_op *op;

	if (m->close_wanted)
		return -ECANCELED;
	op = calloc(1, sizeof(*op));
	if (!op)
		return -ENOMEM;
	op->m = m;
	op->kind = kind;
	op->explicit = explicit;
	op->done = done;
	op->arg = arg;
	op->name = strdup(name);
	op->path = path ? strdup(path) : NULL;
	op->config = config ? strdup(config) : NULL;
	if (!op->name || (path && !op->path) || (config && !op->config)) {
		op_free(op);
		return -ENOMEM;
	}
	LL_APPEND(m->ops, op);
	op_next(m);
	return 0;
}

/* ---- the thread pool ---- */

static void on_pool(uv_work_t *work)
{
	struct pb_op *op = PB_CONTAINER_OF(work, struct pb_op, work);

	op->rc = op->blocking(op, &op->err);
}

static void after_pool(uv_work_t *work, int status)
{
	struct pb_op *op = PB_CONTAINER_OF(work, struct pb_op, work);

	op->m->handles--;
	op->then(op, status < 0 ? status : op->rc);
}

void pb_op_pool(struct pb_op *op, int (*blocking)(struct pb_op *op, struct pb_err *err),
		void (*then)(struct pb_op *op, int rc))
{
	int rc;

	op->blocking = blocking;
	op->then = then;
	op->m->handles++;
	rc = uv_queue_work(op->m->env.loop, &op->work, on_pool, after_pool);
	if (rc < 0) {
		op->m->handles--;
		then(op,
		     pb_err_set(&op->err, rc, "the thread pool refuses work: %s", strerror(-rc)));
	}
}

/* ---- the public operations ---- */

static void queue_or_fail(struct pb_manager *m, enum pb_op_kind kind, const char *name,
			  const char *path, pb_manager_done_fn done, void *arg)
{
	int rc;

	if (!pb_name_valid(name)) {
		if (done)
			done(arg, -EINVAL,
			     "not a name of a plugin: lower case letters, digits, dashes");
		return;
	}
	rc = pb_op_queue(m, kind, name, path, NULL, true, done, arg);
	if (rc < 0 && done)
		done(arg, rc, rc == -ECANCELED ? "the agent is stopping" : "out of memory");
}

void pb_manager_load(struct pb_manager *m, const char *name, const char *path,
		     pb_manager_done_fn done, void *arg)
{
	queue_or_fail(m, PB_OP_LOAD, name, path, done, arg);
}

void pb_manager_reload(struct pb_manager *m, const char *name, const char *path,
		       pb_manager_done_fn done, void *arg)
{
	queue_or_fail(m, PB_OP_RELOAD, name, path, done, arg);
}

void pb_manager_unload(struct pb_manager *m, const char *name, pb_manager_done_fn done, void *arg)
{
	queue_or_fail(m, PB_OP_UNLOAD, name, NULL, done, arg);
}
