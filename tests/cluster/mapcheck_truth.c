/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the API server was told, read from the journal.
 *
 * Owns the times: since when something is certain, and when it was possible for the last time.
 * Must never look at the maps or ask the agent.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mapcheck_truth.h"

/* ---- text ---- */

bool mc_endpoint_parse(const char *text, struct mc_endpoint *ret)
{
	char host[INET6_ADDRSTRLEN];
	const char *colon;
	char *end;
	unsigned long port;
	size_t len;

	memset(ret, 0, sizeof(*ret));
	if (strncmp(text, "tcp/", 4) == 0 || strncmp(text, "udp/", 4) == 0) {
		ret->protocol = text[0] == 't' ? 6 : 17;
		text += 4;
	}
	colon = strrchr(text, ':');
	if (!colon)
		return false;
	len = (size_t)(colon - text);
	ret->family = 4;
	if (len > 2 && text[0] == '[' && text[len - 1] == ']') {
		ret->family = 6;
		text++;
		len -= 2;
	}
	if (len >= sizeof(host))
		return false;
	memcpy(host, text, len);
	host[len] = 0;
	port = strtoul(colon + 1, &end, 10);
	ret->port = (uint16_t)port;
	return inet_pton(ret->family == 4 ? AF_INET : AF_INET6, host, ret->addr) == 1 && port > 0 &&
	       port < 65536 && (*end == 0 || strcmp(end, "?") == 0);
}

const char *mc_endpoint_text(const struct mc_endpoint *ep, char *out)
{
	char host[INET6_ADDRSTRLEN] = "";

	inet_ntop(ep->family == 4 ? AF_INET : AF_INET6, ep->addr, host, sizeof(host));
	snprintf(out, MC_ENDPOINT_TEXT, ep->family == 4 ? "%s%s:%u" : "%s[%s]:%u",
		 ep->protocol == 6    ? "tcp/"
		 : ep->protocol == 17 ? "udp/"
				      : "",
		 host, ep->port);
	return out;
}

void *mc_must(void *p)
{
	if (!p) {
		fprintf(stderr, "mapcheck: out of memory\n");
		exit(2);
	}
	return p;
}

/* ---- what comes and goes ---- */

static void possible_add(struct presence *here, int by, uint64_t at)
{
	here->possible += (uint32_t)by;
	if (here->possible == 0)
		here->possible_until = at;
}

static void certain_add(struct presence *here, int by, uint64_t at)
{
	if (here->certain == 0)
		here->certain_since = at;
	here->certain += (uint32_t)by;
}

static struct backend *backend_at(struct service *service, const struct mc_endpoint *at)
{
	struct backend *backend;

	HASH_FIND(hh, service->backends, at, sizeof(*at), backend);
	if (!backend) {
		backend = mc_must(calloc(1, sizeof(*backend)));
		backend->at = *at;
		HASH_ADD(hh, service->backends, at, sizeof(backend->at), backend);
	}
	return backend;
}

static void set_possible(struct service *service, const struct endpoints *set, int by, uint64_t at)
{
	for (uint32_t i = 0; i < set->n; i++)
		possible_add(&backend_at(service, &set->list[i])->here, by, at);
}

static bool set_has(const struct endpoints *set, const struct mc_endpoint *at)
{
	for (uint32_t i = 0; i < set->n; i++)
		if (!set->optional[i] && memcmp(&set->list[i], at, sizeof(*at)) == 0)
			return true;
	return false;
}

/* Those that are in `set` and not in `except`. */
static void set_certain(struct service *service, const struct endpoints *set,
			const struct endpoints *except, int by, uint64_t at)
{
	for (uint32_t i = 0; i < set->n; i++)
		if (!set->optional[i] && !set_has(except, &set->list[i]))
			certain_add(&backend_at(service, &set->list[i])->here, by, at);
}

static void set_free(struct endpoints *set)
{
	free(set->list);
	free(set->optional);
	memset(set, 0, sizeof(*set));
}

/* Between sent and done the old and the new set are possible; certain is what both have. */
static void slice_sent(struct service *service, struct slice *slice, struct endpoints *set,
		       uint64_t at)
{
	set_possible(service, set, 1, at);
	set_certain(service, &slice->done, set, -1, at);
	slice->sent = *set;
	slice->pending = true;
}

static void slice_done(struct service *service, struct slice *slice, struct endpoints *set,
		       uint64_t at)
{
	if (slice->pending)
		set_free(set);
	else
		slice_sent(service, slice, set, at);
	set_certain(service, &slice->sent, &slice->done, 1, at);
	set_possible(service, &slice->done, -1, at);
	set_free(&slice->done);
	slice->done = slice->sent;
	memset(&slice->sent, 0, sizeof(slice->sent));
	slice->pending = false;
}

static void service_line(struct mc_truth *truth, struct service *service, bool sent,
			 const struct mc_endpoint *at, uint64_t when)
{
	bool exists = at != NULL;

	/* A Service that is made anew may get another address. */
	if (exists && memcmp(&service->at, at, sizeof(*at)) != 0) {
		if (service->at.family)
			HASH_DELETE(hh_at, truth->by_frontend, service);
		service->at = *at;
		HASH_ADD(hh_at, truth->by_frontend, at, sizeof(service->at), service);
	}
	if (!service->pending) {
		if (exists && !service->exists)
			possible_add(&service->here, 1, when);
		if (!exists && service->exists)
			certain_add(&service->here, -1, when);
	}
	service->pending = sent;
	if (sent)
		return;
	if (exists && !service->exists)
		certain_add(&service->here, 1, when);
	if (!exists && service->exists)
		possible_add(&service->here, -1, when);
	service->exists = exists;
}

/* ---- the journal ---- */

static struct service *service_named(struct mc_truth *truth, const char *name)
{
	struct service *service;

	HASH_FIND_STR(truth->services, name, service);
	if (!service) {
		service = mc_must(calloc(1, sizeof(*service)));
		service->name = mc_must(strdup(name));
		HASH_ADD_KEYPTR(hh, truth->services, service->name, strlen(name), service);
	}
	return service;
}

static struct slice *slice_named(struct service *service, const char *name)
{
	struct slice *slice;

	HASH_FIND_STR(service->slices, name, slice);
	if (!slice) {
		slice = mc_must(calloc(1, sizeof(*slice)));
		slice->name = mc_must(strdup(name));
		HASH_ADD_KEYPTR(hh, service->slices, slice->name, strlen(name), slice);
	}
	return slice;
}

static bool parse_set(char **save, struct endpoints *ret)
{
	uint32_t room = 0;
	char *word;

	memset(ret, 0, sizeof(*ret));
	while ((word = strtok_r(NULL, " \n", save))) {
		if (ret->n == room) {
			room = room ? room * 2 : 16;
			ret->list = mc_must(reallocarray(ret->list, room, sizeof(*ret->list)));
			ret->optional =
				mc_must(reallocarray(ret->optional, room, sizeof(*ret->optional)));
		}
		if (!mc_endpoint_parse(word, &ret->list[ret->n])) {
			set_free(ret);
			return false;
		}
		ret->optional[ret->n++] = word[strlen(word) - 1] == '?';
	}
	return true;
}

static bool line_of_object(struct mc_truth *truth, const char *what, uint64_t when, char **save)
{
	char *name = strtok_r(NULL, " \n", save), *phase = strtok_r(NULL, " \n", save), *slash;
	struct service *service;
	struct endpoints set;
	bool sent;

	if (!name || !phase || (strcmp(phase, "sent") != 0 && strcmp(phase, "done") != 0))
		return false;
	sent = strcmp(phase, "sent") == 0;
	slash = strchr(name, '/');
	if (slash)
		*slash = 0;
	if ((strcmp(what, "slice") == 0) != (slash != NULL) || !parse_set(save, &set))
		return false;
	service = service_named(truth, name);
	if (slash) {
		(sent ? slice_sent : slice_done)(service, slice_named(service, slash + 1), &set,
						 when);
		return true;
	}
	service_line(truth, service, sent, set.n ? &set.list[0] : NULL, when);
	set_free(&set);
	return true;
}

static bool take_line(struct mc_truth *truth, char *line)
{
	char *save, *word = strtok_r(line, " \n", &save), *what = strtok_r(NULL, " \n", &save);
	uint64_t when = word ? strtoull(word, NULL, 10) : 0;

	if (!when || !what)
		return false;
	if (strcmp(what, "slice") == 0 || strcmp(what, "service") == 0)
		return line_of_object(truth, what, when, &save);
	if (strcmp(what, "cut") == 0 || strcmp(what, "joined") == 0) {
		if (what[0] == 'j')
			truth->joined = when;
		else if (!truth->cut)
			truth->cut = when;
		if (what[0] == 'c')
			truth->joined = 0;
		return true;
	}
	return false;
}

bool mc_truth_follow(struct mc_truth *truth)
{
	for (;;) {
		long at = ftell(truth->journal);
		ssize_t len = getline(&truth->line, &truth->line_size, truth->journal);

		/* A line without its end is still being written. */
		if (len <= 0 || truth->line[len - 1] != '\n') {
			clearerr(truth->journal);
			fseek(truth->journal, at, SEEK_SET);
			return true;
		}
		if (!take_line(truth, truth->line)) {
			fprintf(stderr, "mapcheck: the journal's line at byte %ld: no sense\n", at);
			return false;
		}
	}
}

struct mc_truth *mc_truth_open(const char *journal)
{
	struct mc_truth *truth = mc_must(calloc(1, sizeof(*truth)));

	truth->journal = fopen(journal, "re");
	if (!truth->journal) {
		fprintf(stderr, "mapcheck: %s: %s\n", journal, strerror(errno));
		free(truth);
		return NULL;
	}
	return truth;
}

static void service_free(struct service *service)
{
	struct backend *backend, *next;
	struct slice *slice, *next_slice;

	HASH_ITER (hh, service->backends, backend, next) {
		HASH_DEL(service->backends, backend);
		free(backend);
	}
	HASH_ITER (hh, service->slices, slice, next_slice) {
		HASH_DEL(service->slices, slice);
		set_free(&slice->done);
		set_free(&slice->sent);
		free(slice->name);
		free(slice);
	}
	free(service->name);
	free(service);
}

void mc_truth_close(struct mc_truth *truth)
{
	struct service *service, *next;
	struct stranger *stranger, *next_stranger;

	if (!truth)
		return;
	HASH_CLEAR(hh_at, truth->by_frontend);
	HASH_ITER (hh, truth->services, service, next) {
		HASH_DEL(truth->services, service);
		service_free(service);
	}
	HASH_ITER (hh, truth->strangers, stranger, next_stranger) {
		HASH_DEL(truth->strangers, stranger);
		free(stranger);
	}
	fclose(truth->journal);
	free(truth->line);
	free(truth);
}
