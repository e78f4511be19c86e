/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event ring on the loop.
 *
 * Owns the uv_poll handle of the ring's epoll fd. Takes a bounded number of events per wake-up:
 * the poll is level-triggered, so what is left comes with the next turn of the loop.
 */
#include <datapath/internal.h>

#include <base/log.h>

#define RING_BATCH 512U

struct pb_ring {
	uv_poll_t poll;
	struct ring_buffer *rb;
	pb_dp_event_fn fn;
	void *arg;
	unsigned left; /* of this wake-up's batch */
	void (*closed)(void *arg);
	void *closed_arg;
};

static int ring_event(void *arg, void *data, size_t len)
{
	struct pb_ring *ring = arg;
	const struct pb_event *event = data;

	/* A record that lies about its length would make readers run past its end. */
	if (len >= sizeof(*event) && event->len >= sizeof(*event) && event->len <= len && ring->fn)
		ring->fn(ring->arg, event);
	/* libbpf stops at a negative result, this record done. */
	return --ring->left > 0 ? 0 : -EAGAIN;
}

static void ring_readable(uv_poll_t *handle, int status, int events)
{
	struct pb_ring *ring = PB_CONTAINER_OF(handle, struct pb_ring, poll);
	int rc;

	(void)events;
	ring->left = RING_BATCH;
	rc = status < 0 ? status : ring_buffer__consume(ring->rb);
	if (rc < 0 && rc != -EAGAIN)
		pb_error("datapath", "event ring: %s", strerror(-rc));
}

int pb_ring_new(uv_loop_t *loop, int map_fd, struct pb_ring **ret_ring, struct pb_err *err)
{
	struct pb_ring *ring = calloc(1, sizeof(*ring));
	int rc;

	if (!ring)
		return pb_err_set(err, -ENOMEM, "no memory");
	ring->rb = ring_buffer__new(map_fd, ring_event, ring, NULL);
	if (!ring->rb) {
		rc = pb_err_set(err, -errno, "can't read the event ring: %s", strerror(errno));
		free(ring);
		return rc;
	}
	rc = uv_poll_init(loop, &ring->poll, ring_buffer__epoll_fd(ring->rb));
	if (rc < 0) {
		ring_buffer__free(ring->rb);
		free(ring);
		return pb_err_set(err, rc, "can't poll the event ring: %s", uv_strerror(rc));
	}
	*ret_ring = ring;
	return 0;
}

void pb_ring_listen(struct pb_ring *ring, pb_dp_event_fn fn, void *arg)
{
	ring->fn = fn;
	ring->arg = arg;
	if (fn)
		uv_poll_start(&ring->poll, UV_READABLE, ring_readable);
	else
		uv_poll_stop(&ring->poll);
}

static void ring_closed(uv_handle_t *handle)
{
	struct pb_ring *ring = PB_CONTAINER_OF((uv_poll_t *)handle, struct pb_ring, poll);
	void (*closed)(void *) = ring->closed;
	void *arg = ring->closed_arg;

	ring_buffer__free(ring->rb);
	free(ring);
	closed(arg);
}

void pb_ring_close(struct pb_ring *ring, void (*closed)(void *arg), void *arg)
{
	ring->closed = closed;
	ring->closed_arg = arg;
	uv_close((uv_handle_t *)&ring->poll, ring_closed);
}
