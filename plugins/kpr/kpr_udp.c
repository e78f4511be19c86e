/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three steps: a scan on the thread pool finds sockets of ours, the loop judges them by the model,
 * the thread pool destroys the condemned ones. One such round at a time.
 */
#include "kpr_udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "kpr.h"
#include "kpr_sockdiag.h"

enum fate {
	FATE_KEEP,
	FATE_DESTROY,
	FATE_UNSURE,
};

/* A socket of ours that is connected to a backend. */
struct found {
	struct kpr_reverse_key key;
	struct kpr_reverse value;
	struct inet_diag_msg sock;
	uint32_t ns;
	enum fate fate;
};

/* One round. Belongs to the thread while work runs, else to the loop. */
struct round {
	const struct pb_host *host;
	struct pb_map *reverse;
	struct kpr_udp_peer *gone; /* sorted */
	uint32_t n_gone;
	bool all;
	bool more; /* found no room */
	struct kpr_diag diag;
	uint32_t n_found;
	uint32_t n_destroyed;
	uint32_t n_failed;
	int error;
	struct found found[KPR_UDP_FOUND_MAX];
};

static void wake(struct pb_ctx *ctx, struct kpr_udp *u, uint64_t ms);

static void round_free(struct round *r)
{
	kpr_diag_close(&r->diag);
	free(r->gone);
	free(r);
}

/* ---- what is gone ---- */

static int compare_peers(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct kpr_udp_peer));
}

static void gone_add(struct kpr_udp *u, const struct kpr_udp_peer *peer)
{
	uint32_t cap = u->cap_gone ? 2 * u->cap_gone : 16;
	struct kpr_udp_peer *gone = u->gone;

	if (u->all)
		return;
	if (u->n_gone == u->cap_gone && u->n_gone < KPR_UDP_GONE_MAX) {
		gone = realloc(gone, cap * sizeof(*gone));
		if (gone) {
			u->gone = gone;
			u->cap_gone = cap;
		}
	}
	if (u->n_gone == u->cap_gone)
		u->all = true;
	else
		gone[u->n_gone++] = *peer;
}

/* In the order of a part: family, protocol, port name, address, port. */
static int compare_backends(const struct pb_backends *v, const struct pb_backend *b,
			    const struct pb_backend *key, const char *name)
{
	int rc = (int)b->family - key->family;

	if (rc == 0)
		rc = (int)b->protocol - key->protocol;
	if (rc == 0)
		rc = strcmp(pb_backends_string(v, b->port_name), name);
	if (rc == 0)
		rc = memcmp(&b->addr, &key->addr, sizeof(b->addr));
	return rc ? rc : (int)b->port - key->port;
}

/* Whether a part has the backend, whatever its condition. */
static bool part_has(const struct pb_backends *v, const struct pb_backend *key, const char *name)
{
	uint32_t from = 0;
	uint32_t to = v ? v->n : 0;

	while (from < to) {
		uint32_t mid = from + (to - from) / 2;
		int rc = compare_backends(v, &v->backend[mid], key, name);

		if (rc == 0)
			return true;
		if (rc < 0)
			from = mid + 1;
		else
			to = mid;
	}
	return false;
}

void kpr_udp_note(struct pb_ctx *ctx, struct kpr_udp *u, const struct pb_backends *old,
		  const struct pb_backends *value)
{
	bool any = false;

	for (uint32_t i = 0; i < old->n; i++) {
		const struct pb_backend *b = &old->backend[i];
		struct kpr_udp_peer peer = {.addr = b->addr,
					    .port = htons(b->port),
					    .family = b->family};

		if (b->protocol != IPPROTO_UDP ||
		    part_has(value, b, pb_backends_string(old, b->port_name)))
			continue;
		gone_add(u, &peer);
		any = true;
	}
	if (any)
		wake(ctx, u, KPR_UDP_DELAY_MS);
}

/* ---- on the thread pool ---- */

/* The peer as the programs have it: IPv4 in IPv6 dress is IPv4. */
static struct kpr_udp_peer peer_of(const struct inet_diag_msg *sock)
{
	static const __be32 zeroes[2];
	struct kpr_udp_peer peer = {.port = sock->id.idiag_dport, .family = 4};
	const __be32 *dst = sock->id.idiag_dst;

	if (sock->idiag_family == AF_INET) {
		peer.addr.v4 = dst[0];
	} else if (memcmp(dst, zeroes, sizeof(zeroes)) == 0 && dst[2] == htonl(0xffff)) {
		peer.addr.v4 = dst[3];
	} else {
		peer.family = 6;
		memcpy(&peer.addr, dst, sizeof(peer.addr));
	}
	return peer;
}

static bool on_socket(void *arg, uint32_t ns, const struct inet_diag_msg *sock)
{
	struct kpr_udp_peer peer = peer_of(sock);
	struct round *r = arg;
	struct found *f = &r->found[r->n_found];

	if (!r->all && !bsearch(&peer, r->gone, r->n_gone, sizeof(peer), compare_peers))
		return false;
	if (r->n_found == KPR_UDP_FOUND_MAX) {
		r->more = true;
		return false;
	}
	*f = (struct found){.sock = *sock, .ns = ns};
	f->key = (struct kpr_reverse_key){.cookie = (uint64_t)sock->id.idiag_cookie[1] << 32 |
						    sock->id.idiag_cookie[0],
					  .addr = peer.addr,
					  .port = peer.port,
					  .protocol = IPPROTO_UDP,
					  .family = peer.family};
	if (r->host->map_lookup(r->reverse, &f->key, &f->value) < 0)
		return false;
	r->n_found++;
	return true;
}

static int find(void *arg)
{
	struct round *r = arg;

	r->error = kpr_diag_scan(&r->diag, on_socket, r);
	r->more = r->more || r->diag.n == KPR_DIAG_KEPT_MAX;
	return 0;
}

static int destroy(void *arg)
{
	struct round *r = arg;

	for (uint32_t i = 0; i < r->n_found; i++) {
		struct found *f = &r->found[i];
		int rc;

		if (f->fate != FATE_DESTROY)
			continue;
		rc = kpr_diag_destroy(&r->diag, f->ns, &f->sock);
		if (rc == 0)
			r->host->map_delete(r->reverse, &f->key);
		r->n_destroyed += rc == 0;
		/* -ENOENT: it was closed or went elsewhere meanwhile. */
		r->n_failed += rc < 0 && rc != -ENOENT;
		if (rc < 0 && rc != -ENOENT)
			r->error = rc;
	}
	return 0;
}

/* ---- on the loop ---- */

static bool svc_has(const struct kpr_svc *svc, const struct kpr_reverse_key *peer, const char *name)
{
	const struct pb_backend key = {.addr = peer->addr,
				       .port = ntohs(peer->port),
				       .family = peer->family,
				       .protocol = IPPROTO_UDP};
	const struct kpr_part *part;

	DL_FOREACH (svc->parts, part)
		if (part_has(part->value, &key, name))
			return true;
	return false;
}

/* Before that nobody can say who is gone. */
static bool all_known(const struct kpr_model *m)
{
	return m->adopted && kpr_model_owners_known(m) && m->addresses_synced && m->backends_synced;
}

static enum fate judge(const struct kpr_model *m, const struct found *f)
{
	struct pb_svc_key key = f->value.frontend;
	const struct kpr_front *front;
	const struct kpr_svc *svc;

	if (!all_known(m))
		return FATE_UNSURE;
	if (f->value.flags & KPR_REVERSE_ANYWHERE)
		memset(&key.addr, 0, sizeof(key.addr));
	front = kpr_model_front(m, &key);
	/* Whoever has the frontend by now: a socket whose backend that one has is well. */
	if (!front || !front->claims)
		return FATE_DESTROY;
	svc = front->claims->svc;
	if (!svc->head || !kpr_model_whole(svc))
		return FATE_UNSURE;
	return svc_has(svc, &f->key, kpr_port_name(front->claims->port)) ? FATE_KEEP : FATE_DESTROY;
}

/* Many sockets of one client tend to mean the same: judged once. */
static bool same_question(const struct found *a, const struct found *b)
{
	return memcmp(&a->value, &b->value, sizeof(a->value)) == 0 &&
	       memcmp(&a->key.addr, &b->key.addr, sizeof(a->key.addr)) == 0 &&
	       a->key.port == b->key.port;
}

/* Returns how many are to be destroyed. What is uncertain is noted again. */
static uint32_t judge_all(struct kpr_udp *u, struct round *r, bool *ret_unsure)
{
	uint32_t n = 0;

	*ret_unsure = false;
	for (uint32_t i = 0; i < r->n_found; i++) {
		struct found *f = &r->found[i];
		const struct kpr_udp_peer peer = {.addr = f->key.addr,
						  .port = f->key.port,
						  .family = f->key.family};
		bool again = i > 0 && same_question(f, f - 1);

		f->fate = again ? (f - 1)->fate : judge(u->model, f);
		n += f->fate == FATE_DESTROY;
		if (f->fate == FATE_UNSURE && !again)
			gone_add(u, &peer);
		*ret_unsure = *ret_unsure || f->fate == FATE_UNSURE;
	}
	return n;
}

static void report(struct pb_ctx *ctx, struct kpr_udp *u, const struct round *r)
{
	const struct pb_host *h = ctx->host;

	h->metric_add(ctx, u->metric_destroyed, r->n_destroyed);
	h->metric_add(ctx, u->metric_failed, r->n_failed);
	if (r->n_destroyed > 0 && !u->said)
		h->log(ctx, PB_LOG_INFO,
		       "%u connected UDP sockets destroyed whose backend is gone; metric "
		       "udp_sockets_destroyed counts further ones",
		       r->n_destroyed);
	u->said = u->said || r->n_destroyed > 0;
	if (r->error == 0 || u->warned)
		return;
	u->warned = true;
	h->log(ctx, PB_LOG_WARN,
	       "UDP sockets whose backend is gone may stay connected to it: %s (%u network "
	       "namespaces "
	       "could not be entered, %u sockets not destroyed); it takes the host's /proc, "
	       "CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_NET_ADMIN and a kernel with "
	       "CONFIG_INET_DIAG_DESTROY",
	       strerror(-r->error), r->diag.n_closed, r->n_failed);
}

static void round_done(struct pb_ctx *ctx, struct kpr_udp *u, struct round *r)
{
	u->scanning = false;
	report(ctx, u, r);
	/* What found no room is still connected to what is gone. */
	if (r->more && r->all)
		u->all = true;
	for (uint32_t i = 0; r->more && i < r->n_gone; i++)
		gone_add(u, &r->gone[i]);
	if (u->all || u->n_gone > 0)
		wake(ctx, u, KPR_UDP_PAUSE_MS);
	round_free(r);
}

static void on_destroyed(struct pb_ctx *ctx, void *arg, int result)
{
	struct kpr *kpr = ctx->self;

	if (result == -ECANCELED)
		round_free(arg);
	else
		round_done(ctx, &kpr->udp, arg);
}

static void on_found(struct pb_ctx *ctx, void *arg, int result)
{
	struct kpr *kpr = ctx->self;
	struct kpr_udp *u = &kpr->udp;
	struct round *r = arg;
	bool unsure;
	uint32_t n;

	if (result == -ECANCELED) {
		round_free(r);
		return;
	}
	n = judge_all(u, r, &unsure);
	if (unsure)
		u->next_ns = ctx->host->now_ns() + KPR_UDP_RETRY_MS * 1000000ULL;
	if (n == 0 || ctx->host->work(ctx, destroy, on_destroyed, r) < 0)
		round_done(ctx, u, r);
}

/* ---- when ---- */

/* NULL without memory: what is gone stays noted. */
static struct round *round_new(struct pb_ctx *ctx, struct kpr_udp *u)
{
	struct round *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->host = ctx->host;
	r->reverse = u->reverse;
	r->all = u->all;
	r->gone = u->gone;
	r->n_gone = u->n_gone;
	if (r->n_gone > 0)
		qsort(r->gone, r->n_gone, sizeof(*r->gone), compare_peers);
	u->gone = NULL;
	u->n_gone = 0;
	u->cap_gone = 0;
	u->all = false;
	return r;
}

static void on_timer(struct pb_ctx *ctx, void *arg)
{
	struct kpr_udp *u = arg;
	struct kpr_reverse_key key;
	struct round *r;

	u->timer_runs = false;
	if (!all_known(u->model)) {
		wake(ctx, u, KPR_UDP_RETRY_MS);
		return;
	}
	/* Nothing was ever translated. */
	if (u->scanning || ctx->host->map_next(u->reverse, NULL, &key) < 0) {
		u->n_gone = u->scanning ? u->n_gone : 0;
		u->all = u->scanning && u->all;
		return;
	}
	u->next_ns = ctx->host->now_ns() + KPR_UDP_PAUSE_MS * 1000000ULL;
	r = round_new(ctx, u);
	if (!r) {
		wake(ctx, u, KPR_UDP_RETRY_MS);
		return;
	}
	ctx->host->metric_add(ctx, u->metric_scans, 1);
	u->scanning = true;
	if (ctx->host->work(ctx, find, on_found, r) < 0) {
		r->more = true;
		round_done(ctx, u, r);
	}
}

static void wake(struct pb_ctx *ctx, struct kpr_udp *u, uint64_t ms)
{
	uint64_t now = ctx->host->now_ns();
	uint64_t wait = u->next_ns > now ? (u->next_ns - now + 999999) / 1000000 : 0;

	if (u->timer_runs || u->scanning)
		return;
	u->timer_runs =
		ctx->host->timer_start(ctx, wait > ms ? wait : ms, 0, on_timer, u, &u->timer) == 0;
}

/* ---- life ---- */

int kpr_udp_declare(struct pb_ctx *ctx, struct kpr_udp *u, const struct kpr_model *model)
{
	const struct {
		const char *name;
		const char *help;
		uint32_t *id;
	} metrics[] = {
		{"udp_scans", "Searches for connected UDP sockets whose backend is gone",
		 &u->metric_scans},
		{"udp_sockets_destroyed", "Connected UDP sockets destroyed: their backend was gone",
		 &u->metric_destroyed},
		{"udp_sockets_failed", "Connected UDP sockets that could not be destroyed",
		 &u->metric_failed},
	};
	int rc = ctx->host->map(ctx, "kpr_reverse", &u->reverse);

	u->model = model;
	for (size_t i = 0; rc == 0 && i < sizeof(metrics) / sizeof(metrics[0]); i++)
		rc = ctx->host->metric(ctx, PB_METRIC_COUNTER, metrics[i].name, metrics[i].help,
				       metrics[i].id);
	return rc;
}

void kpr_udp_start(struct pb_ctx *ctx, struct kpr_udp *u)
{
	u->all = true;
	wake(ctx, u, KPR_UDP_PAUSE_MS);
}

void kpr_udp_free(struct pb_ctx *ctx, struct kpr_udp *u)
{
	if (u->timer_runs)
		ctx->host->timer_stop(ctx, u->timer);
	free(u->gone);
	memset(u, 0, sizeof(*u));
}
