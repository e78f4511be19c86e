/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads kpr's pinned maps by the layout of patchbay/maps/services.h.
 *
 * Owns all knowledge of that layout on the reader's side. Only spoil and drop write; they are for
 * the tests of the reader itself. Must never take half of a change for a state: a frontend that
 * changed while it was read is read again.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <patchbay/maps/services.h>

#include "mapcheck.h"

/* How often a frontend that changes all the time is looked at before it counts as unsettled. */
#define ATTEMPTS 100

/* An array map, seen as the memory that it is. */
struct array {
	int fd;
	uint32_t entries;
	size_t stride;
	const volatile uint8_t *memory;
};

struct mc_maps {
	int services;
	uint32_t max_services;
	struct array slots;
	struct array backends;
};

static int open_pinned(const char *dir, const char *name, struct bpf_map_info *ret_info)
{
	__u32 len = sizeof(*ret_info);
	char path[512];
	int fd;

	memset(ret_info, 0, sizeof(*ret_info));
	snprintf(path, sizeof(path), "%s/plugins/kpr/%s_v%u", dir, name, (unsigned)PB_SVC_SCHEMA);
	fd = bpf_obj_get(path);
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, ret_info, &len) < 0)
		fprintf(stderr, "mapcheck: %s: %s\n", path, strerror(errno));
	return fd;
}

static bool open_array(const char *dir, const char *name, struct array *array)
{
	struct bpf_map_info info;
	void *memory;

	array->fd = open_pinned(dir, name, &info);
	if (array->fd < 0)
		return false;
	array->entries = info.max_entries;
	array->stride = (info.value_size + 7) / 8 * 8;
	memory = mmap(NULL, array->stride * array->entries, PROT_READ, MAP_SHARED, array->fd, 0);
	if (memory == MAP_FAILED) {
		fprintf(stderr, "mapcheck: mmap of %s: %s\n", name, strerror(errno));
		return false;
	}
	array->memory = memory;
	return true;
}

static void close_array(struct array *array)
{
	if (array->memory)
		munmap((void *)(uintptr_t)array->memory, array->stride * array->entries);
	if (array->fd >= 0)
		close(array->fd);
}

struct mc_maps *mc_maps_open(const char *dir)
{
	struct mc_maps *maps = calloc(1, sizeof(*maps));
	struct bpf_map_info info;

	if (!maps)
		return NULL;
	maps->slots.fd = maps->backends.fd = -1;
	maps->services = open_pinned(dir, "kpr_services", &info);
	maps->max_services = info.max_entries;
	if (maps->services < 0 || !open_array(dir, "kpr_slots", &maps->slots) ||
	    !open_array(dir, "kpr_backends", &maps->backends)) {
		mc_maps_close(maps);
		return NULL;
	}
	return maps;
}

void mc_maps_close(struct mc_maps *maps)
{
	if (!maps)
		return;
	if (maps->services >= 0)
		close(maps->services);
	close_array(&maps->slots);
	close_array(&maps->backends);
	free(maps);
}

/* False when there is no such entry. */
static bool array_read(const struct array *array, uint32_t index, void *ret, size_t size)
{
	if (index >= array->entries || size > array->stride)
		return false;
	for (size_t i = 0; i < size; i++)
		((uint8_t *)ret)[i] = array->memory[index * array->stride + i];
	return true;
}

static void endpoint_from(const union pb_addr *addr, __be16 port, uint8_t family, uint8_t protocol,
			  struct mc_endpoint *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->addr, addr->bytes, family == 4 ? 4 : 16);
	ret->port = ntohs(port);
	ret->family = family;
	ret->protocol = protocol;
}

/* -EAGAIN: slots and records are not, or not any more, of this frontend's pool. */
static int read_pool(const struct mc_maps *maps, const struct pb_svc_key *key,
		     const struct pb_svc *service, struct mc_endpoint *backends)
{
	uint32_t pool = pb_svc_tie(key, service->tie);

	for (uint32_t i = 0; i < service->count; i++) {
		struct pb_svc_backend backend;
		struct pb_svc_slot slot;

		if (!array_read(&maps->slots, service->base + i, &slot, sizeof(slot)) ||
		    slot.pool != pool ||
		    !array_read(&maps->backends, slot.backend, &backend, sizeof(backend)) ||
		    backend.pool != pool)
			return -EAGAIN;
		endpoint_from(&backend.addr, backend.port, backend.family, 0, &backends[i]);
	}
	return 0;
}

/* One look. `room` is the frontend's own. -ENOENT: it is gone. */
static int look(const struct mc_maps *maps, const struct pb_svc_key *key, struct pb_svc *service,
		struct mc_endpoint **room)
{
	struct mc_endpoint *grown;

	if (bpf_map_lookup_elem(maps->services, key, service) < 0)
		return -errno;
	if (service->count > maps->slots.entries)
		return -EAGAIN;
	grown = realloc(*room, (service->count + 1) * sizeof(**room));
	if (!grown)
		return -ENOMEM;
	*room = grown;
	return read_pool(maps, key, service, grown);
}

/* 1: read, perhaps as unsettled; 0: it is gone; or a negative errno. */
static int read_frontend(const struct mc_maps *maps, const struct pb_svc_key *key,
			 struct mc_frontend *ret)
{
	struct mc_endpoint *first = NULL, *second = NULL;
	struct pb_svc before = {0}, after = {0};
	int rc = -EAGAIN;

	/* Slots change in place: a picture counts when the next one is the same. */
	for (int i = 0; i < ATTEMPTS && rc == -EAGAIN; i++) {
		rc = look(maps, key, &before, &first);
		if (rc == 0)
			rc = look(maps, key, &after, &second);
		if (rc == 0 && (memcmp(&before, &after, sizeof(before)) != 0 ||
				memcmp(first, second, before.count * sizeof(*first)) != 0))
			rc = -EAGAIN;
	}
	free(second);
	ret->backends = first;
	ret->unsettled = rc == -EAGAIN;
	ret->n_backends = rc == 0 ? before.count : 0;
	endpoint_from(&key->addr, key->port, key->family, key->protocol, &ret->at);
	if (rc == 0 || rc == -EAGAIN)
		return 1;
	free(ret->backends);
	ret->backends = NULL;
	return rc == -ENOENT ? 0 : rc;
}

/* All keys first: a hash that is walked while it changes may begin anew. */
static int read_keys(struct mc_maps *maps, struct pb_svc_key *ret_keys, uint32_t *ret_n)
{
	struct pb_svc *values = calloc(maps->max_services, sizeof(*values));
	uint32_t n = maps->max_services, batch = 0;
	int rc;

	if (!values)
		return -ENOMEM;
	rc = bpf_map_lookup_batch(maps->services, NULL, &batch, ret_keys, values, &n, NULL);
	free(values);
	if (rc < 0 && errno != ENOENT)
		return -errno;
	*ret_n = n;
	return 0;
}

int mc_maps_read(struct mc_maps *maps, struct mc_picture *ret)
{
	struct pb_svc_key *keys = calloc(maps->max_services, sizeof(*keys));
	uint32_t n = 0;
	int rc;

	memset(ret, 0, sizeof(*ret));
	ret->frontends = calloc(maps->max_services, sizeof(*ret->frontends));
	rc = keys && ret->frontends ? read_keys(maps, keys, &n) : -ENOMEM;
	for (uint32_t i = 0; i < n && rc >= 0; i++) {
		struct mc_frontend *frontend = &ret->frontends[ret->n_frontends];

		rc = read_frontend(maps, &keys[i], frontend);
		ret->n_frontends += rc == 1;
	}
	free(keys);
	if (rc < 0)
		mc_picture_free(ret);
	return rc < 0 ? rc : 0;
}

static void key_of(const struct mc_endpoint *at, struct pb_svc_key *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->addr.bytes, at->addr, sizeof(at->addr));
	ret->port = htons(at->port);
	ret->protocol = at->protocol;
	ret->family = at->family;
}

int mc_maps_spoil(struct mc_maps *maps, const struct mc_endpoint *at, const struct mc_endpoint *put,
		  struct mc_endpoint *ret_before)
{
	struct pb_svc service;
	struct pb_svc_backend backend;
	struct pb_svc_slot slot;
	struct pb_svc_key key;

	key_of(at, &key);
	if (bpf_map_lookup_elem(maps->services, &key, &service) < 0)
		return -errno;
	if (service.count == 0 || !array_read(&maps->slots, service.base, &slot, sizeof(slot)) ||
	    !array_read(&maps->backends, slot.backend, &backend, sizeof(backend)))
		return -ENOENT;
	endpoint_from(&backend.addr, backend.port, backend.family, 0, ret_before);
	memcpy(backend.addr.bytes, put->addr, sizeof(put->addr));
	backend.port = htons(put->port);
	backend.family = put->family;
	return bpf_map_update_elem(maps->backends.fd, &slot.backend, &backend, BPF_ANY) < 0 ? -errno
											    : 0;
}

int mc_maps_drop(struct mc_maps *maps, const struct mc_endpoint *at)
{
	struct pb_svc_key key;

	key_of(at, &key);
	return bpf_map_delete_elem(maps->services, &key) < 0 ? -errno : 0;
}

void mc_picture_free(struct mc_picture *picture)
{
	for (uint32_t i = 0; i < picture->n_frontends; i++)
		free(picture->frontends[i].backends);
	free(picture->frontends);
	memset(picture, 0, sizeof(*picture));
}
