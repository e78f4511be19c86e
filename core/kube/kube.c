/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of the store: made, fed by one source at a time, closed. Switching the source never
 * clears what is known; the new source's first full lists do that, by difference.
 */
#include <kube/store.h>

int pb_kube_new(uv_loop_t *loop, const struct pb_config *config, struct pb_kube **ret_kube,
		struct pb_err *err)
{
	struct pb_kube *kube = calloc(1, sizeof(*kube));
	int rc;

	(void)config;
	if (!kube)
		return pb_err_set(err, -ENOMEM, "kubernetes: out of memory");
	kube->loop = loop;
	rc = uv_idle_init(loop, &kube->idle);
	if (rc < 0) {
		free(kube);
		return pb_err_set(err, rc, "kubernetes: event loop: %s", uv_strerror(rc));
	}
	kube->idle.data = kube;
	kube->open = 1;
	kube->bytes_max = PB_KUBE_BYTES_MAX;
	*ret_kube = kube;
	return 0;
}

static void stores_free(struct pb_kube *kube)
{
	for (uint32_t kind = 1; kind < PB_KUBE_KINDS; kind++) {
		struct pb_kube_store *store = &kube->stores[kind];

		while (store->watches)
			pb_kube_unwatch(store->watches);
		pb_kube_store_clear(kube, kind);
		free(store->state);
		free(store->last_error);
	}
}

/* One handle or source less. */
static void one_closed(struct pb_kube *kube)
{
	void (*closed)(void *arg) = kube->closed;
	void *arg = kube->closed_arg;

	if (--kube->open)
		return;
	stores_free(kube);
	free(kube->source_path);
	free(kube->source_error);
	free(kube);
	if (closed)
		closed(arg);
}

static void idle_closed(uv_handle_t *handle)
{
	one_closed(handle->data);
}

static void source_closed(void *arg)
{
	one_closed(arg);
}

void pb_kube_source_drop(struct pb_kube *kube, struct pb_source *source)
{
	if (!source)
		return;
	kube->open++;
	source->ops->close(source, source_closed, kube);
}

void pb_kube_close(struct pb_kube *kube, void (*closed)(void *arg), void *arg)
{
	kube->closing = true;
	kube->closed = closed;
	kube->closed_arg = arg;
	pb_kube_source_drop(kube, PB_TAKE_PTR(kube->source));
	uv_close((uv_handle_t *)&kube->idle, idle_closed);
}
