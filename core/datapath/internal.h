/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this room share and nobody else sees.
 *
 * Owns the shape of struct pb_dp. `lock` guards the lists of maps and chains, because reports
 * are made on the loop thread while the pool builds; whatever is only written while nothing else
 * of the agent runs (open, close) is read without it.
 */
#ifndef PB_DATAPATH_INTERNAL_H
#define PB_DATAPATH_INTERNAL_H

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <datapath/datapath.h>
#include <datapath/links.h>
#include <datapath/registry.h>

#define PB_CORE_PLUGIN "core" /* owner of the core's maps, in reports and in names */

/* What the kernel wants of the programs of a hook. */
struct pb_hook_kind {
	uint32_t prog_type;
	uint32_t attach_type;
	const char *section; /* as a plugin's source writes it */
	const char *entry;   /* program in entry.bpf.c */
	const char *exit;    /* program in exit.bpf.c */
	const char *gate;    /* map in entry.bpf.c */
	uint32_t gate_index; /* of the live chain */
};
extern const struct pb_hook_kind pb_hook_kinds[PB_HOOK_COUNT];

struct pb_chain_slot {
	char *plugin;
	char *name;
	char *program;
	uint32_t band;
};

/* One hook's chain of one generation. */
struct pb_chain {
	struct pb_chain *next; /* in pb_dp.dead */
	uint32_t hook;
	uint32_t generation;
	char *pin;
	int array_fd;
	int first_fd; /* what the gate holds while this chain is live */
	bool adopted; /* built by an earlier process: slots are unknown */
	size_t n_slots;
	struct pb_chain_slot *slots; /* exit isn't listed */
};

struct pb_dp {
	uv_loop_t *loop;
	char *bpffs;
	char *cgroup;
	enum pb_attach_mode attach;
	char **devices;
	size_t n_devices;
	int lock_fd; /* the bpffs directory, held by flock() */

	uv_mutex_t lock;
	struct pb_reg_map *maps;
	struct pb_chain *live[PB_HOOK_COUNT];
	struct pb_chain *dead; /* replaced by a flip, not yet retired */
	uint32_t generation;   /* the highest number given */
	uint64_t flip_ns;

	struct pb_dp_object *entry;
	struct pb_dp_object *exit;
	int entry_fd[PB_HOOK_COUNT];
	int gate_fd[PB_HOOK_COUNT]; /* borrowed from the registry */
	int rcu_inner_fd;	    /* see pb_dp_rcu_wait() */
	int rcu_outer_fd;

	struct pb_ring *ring;
	struct pb_links *links; /* NULL until attached */
	pb_dp_pod_fn pod_fn;
	void *pod_arg;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* ---- dp.c ---- */

/* fd of a core map by its name in the entry object; -1 for an unknown one. */
int pb_dp_core_fd(struct pb_dp *dp, const char *name);
/* Frees a struct pb_dp whose handles are all closed. NULL: fine. */
void pb_dp_destroy(struct pb_dp *dp);

/* ---- bpffs.c ---- */

/* Makes the directory and those below it, mounting a bpffs when only that is missing. */
int pb_bpffs_make(const char *dir, struct pb_err *err);
/* Locks the directory for this process; -EBUSY names the holder. */
int pb_bpffs_lock(const char *dir, int *ret_fd, struct pb_err *err);
/* Removes everything below `dir`, then `dir`. A missing one is fine. */
int pb_bpffs_remove(const char *dir, struct pb_err *err);

/* ---- object.c, program.c ---- */

/* An object whose ELF is the core's own: its maps are the core maps. */
int pb_object_new_core(struct pb_dp *dp, const char *name, const void *elf, size_t elf_len,
		       struct pb_dp_object **ret_object, struct pb_err *err);
/* The map `name` of a prepared object, NULL when it has none. */
struct pb_reg_map *pb_object_map(const struct pb_dp_object *object, const char *name);
const char *pb_object_plugin(const struct pb_dp_object *object);
/* Its maps keep their pins from now on, even if the object is dropped. */
void pb_object_commit(struct pb_dp_object *object);

/* Constants that place a program in a chain. */
struct pb_place {
	uint32_t hook;
	uint32_t slot_next;
	uint32_t slot_exit;
	uint32_t observed;
	uint32_t generation;
	int chain_fd; /* -1: none (entry programs) */
	/* All that will be live with it: where borrowed maps are looked for. */
	const struct pb_dp_slot *plan;
	size_t n_plan;
};
/*
 * [pool] Loads the programs of `names` (n of them) with these constants and stores their fds.
 * All or nothing.
 */
int pb_object_load(struct pb_dp_object *object, const char *const *names, size_t n,
		   const struct pb_place *place, int *ret_fds, struct pb_err *err);

/* ---- chain.c ---- */

/* Takes over the pinned chains: live ones are kept, those no gate leads to are removed. */
int pb_chain_adopt(struct pb_dp *dp, struct pb_err *err);
/* A chain of exit alone for every hook without a live one. */
int pb_chain_fill(struct pb_dp *dp, struct pb_err *err);
/* Process side only: closes fds, keeps pins. */
void pb_chain_close_all(struct pb_dp *dp);
/* Returns once every program that was running when it was called has ended. */
int pb_dp_rcu_wait(struct pb_dp *dp, struct pb_err *err);

/* ---- ring.c ---- */

int pb_ring_new(uv_loop_t *loop, int map_fd, struct pb_ring **ret_ring, struct pb_err *err);
void pb_ring_listen(struct pb_ring *ring, pb_dp_event_fn fn, void *arg);
/* Closes the handle, frees the ring, then calls closed. */
void pb_ring_close(struct pb_ring *ring, void (*closed)(void *arg), void *arg);

#endif
