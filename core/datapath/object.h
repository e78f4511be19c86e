/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files that handle BPF objects share: object.c (life and maps), elf.c (opening,
 * constants, loading), program.c (programs).
 */
#ifndef PB_DATAPATH_OBJECT_H
#define PB_DATAPATH_OBJECT_H

#include <datapath/internal.h>

struct object_const {
	struct object_const *next;
	char *name;
	uint32_t len;
	unsigned char value[];
};

struct object_map {
	char *name;
	struct pb_map_opts opts;
	struct pb_reg_map *reg;	  /* NULL until prepared */
	struct pb_reg_map *small; /* too small: `reg` is going to grow from it */
};

struct pb_dp_object {
	struct pb_dp *dp;
	char *plugin;
	char *name;
	const void *elf;
	size_t elf_len;
	bool core;
	/* Both guarded by dp->lock: reconfigure() sets them any time. */
	struct object_const *consts;
	struct object_const *tried; /* set since, and written over `consts` until kept or not */
	struct object_map *maps;
	size_t n_maps;
	struct pb_map_opts *opts; /* as registered; names are ours */
	size_t n_opts;
};

/* Sets the text, with plugin and object in front; returns rc. */
int pb_object_err(const struct pb_dp_object *o, struct pb_err *err, int rc, const char *fmt, ...)
	PB_PRINTF(4, 5);

/* ---- elf.c ---- */

/* Opens the ELF; refuses one with writable globals. The caller closes it. */
int pb_elf_open(const struct pb_dp_object *o, struct bpf_object **ret_obj, struct pb_err *err);
/* Writes the plugin's constants, or those of the place in the chain, into .rodata. */
int pb_elf_write_consts(const struct pb_dp_object *o, struct bpf_object *obj, struct pb_err *err);
int pb_elf_write_place(const struct pb_dp_object *o, struct bpf_object *obj,
		       const struct pb_place *place, struct pb_err *err);
/* Loads what is selected; `what` names it in the error, which ends with the kernel's words. */
int pb_elf_load(const struct pb_dp_object *o, struct bpf_object *obj, const char *what,
		struct pb_err *err);

/* ---- object.c ---- */

/*
 * Gives a map whose name starts with pb_ the core's fd, pb_chain the chain's (-1: none). Sets
 * *ret_core when it was one of those.
 */
int pb_object_use_core(const struct pb_dp_object *o, struct bpf_map *map, int chain_fd,
		       bool *ret_core, struct pb_err *err);

/* ---- borrow.c ---- */

/* The options of a map that the object borrows, NULL for another map. */
const struct pb_map_opts *pb_borrow_opts(const struct pb_dp_object *o, const char *name);
/*
 * Gives the map the fd of its owner's, after a comparison. `place`: where programs are loaded for,
 * NULL when it is only tried.
 */
int pb_borrow_use(const struct pb_dp_object *o, const struct pb_place *place,
		  const struct pb_map_opts *opts, struct bpf_map *map, const struct btf *btf,
		  struct pb_err *err);

#endif
