/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs of an object, loaded for one place in one chain.
 *
 * Every load gets its own copy of the program with its place as constants; the maps are those
 * of the registry.
 */
#include <datapath/object.h>

#include <fcntl.h>

static int reuse_map(const struct pb_dp_object *o, struct bpf_map *map, const struct btf *btf,
		     const struct pb_place *place, struct pb_err *err)
{
	const char *name = bpf_map__name(map);
	const struct pb_map_opts *lent = pb_borrow_opts(o, name);
	const struct pb_reg_map *reg = pb_object_map(o, name);
	bool core = false;
	int rc;

	if (lent)
		return pb_borrow_use(o, place, lent, map, btf, err);
	rc = reg ? bpf_map__reuse_fd(map, reg->fd)
		 : pb_object_use_core(o, map, place->chain_fd, &core, err);
	if (rc < 0)
		return pb_object_err(o, err, rc, "map %s: can't be reused: %s", name,
				     strerror(-rc));
	return reg || core
		       ? 0
		       : pb_object_err(o, err, -EINVAL, "map %s: the object wasn't prepared", name);
}

static int reuse_maps(const struct pb_dp_object *o, struct bpf_object *obj,
		      const struct pb_place *place, struct pb_err *err)
{
	struct bpf_map *map;
	int rc = 0;

	bpf_object__for_each_map(map, obj)
	{
		if (rc == 0 && !bpf_map__is_internal(map))
			rc = reuse_map(o, map, bpf_object__btf(obj), place, err);
	}
	return rc;
}

static int select_programs(const struct pb_dp_object *o, struct bpf_object *obj,
			   const char *const *names, size_t n, struct pb_err *err)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, obj) bpf_program__set_autoload(prog, false);
	for (size_t i = 0; i < n; i++) {
		prog = bpf_object__find_program_by_name(obj, names[i]);
		if (!prog)
			return pb_object_err(
				o, err, -ENOENT,
				"the object has no program named %s (the name of its C "
				"function)",
				names[i]);
		bpf_program__set_autoload(prog, true);
	}
	return 0;
}

/* The kernel would say only EINVAL, and only when the chain's array is filled. */
static int check_kind(const struct pb_dp_object *o, struct bpf_object *obj, const char *name,
		      uint32_t hook, struct pb_err *err)
{
	const struct pb_hook_kind *kind = &pb_hook_kinds[hook];
	struct bpf_program *prog = bpf_object__find_program_by_name(obj, name);

	if (!prog || (bpf_program__type(prog) == kind->prog_type &&
		      bpf_program__expected_attach_type(prog) == kind->attach_type))
		return 0;
	return pb_object_err(o, err, -EINVAL,
			     "program %s is SEC(\"%s\"); hook %s needs SEC(\"%s\")", name,
			     bpf_program__section_name(prog), pb_hook_name(hook), kind->section);
}

static int take_fds(struct bpf_object *obj, const char *const *names, size_t n, int *ret_fds)
{
	for (size_t i = 0; i < n; i++) {
		struct bpf_program *prog = bpf_object__find_program_by_name(obj, names[i]);

		ret_fds[i] = fcntl(bpf_program__fd(prog), F_DUPFD_CLOEXEC, 0);
		if (ret_fds[i] < 0) {
			int rc = -errno;

			while (i-- > 0)
				close(ret_fds[i]);
			return rc;
		}
	}
	return 0;
}

int pb_object_load(struct pb_dp_object *o, const char *const *names, size_t n,
		   const struct pb_place *place, int *ret_fds, struct pb_err *err)
{
	PB_FREE char *what = pb_sprintf("program %s", n == 1 ? names[0] : "(all)");
	struct bpf_object *obj = NULL;
	int rc = pb_elf_open(o, &obj, err);

	if (rc < 0)
		return rc;
	rc = select_programs(o, obj, names, n, err);
	if (rc == 0 && n == 1)
		rc = check_kind(o, obj, names[0], place->hook, err);
	if (rc == 0)
		rc = pb_elf_write_consts(o, obj, err);
	if (rc == 0)
		rc = pb_elf_write_place(o, obj, place, err);
	if (rc == 0)
		rc = reuse_maps(o, obj, place, err);
	if (rc == 0)
		rc = pb_elf_load(o, obj, what ? what : "program", err);
	if (rc == 0) {
		rc = take_fds(obj, names, n, ret_fds);
		if (rc < 0)
			pb_object_err(o, err, rc, "out of file descriptors");
	}
	bpf_object__close(obj);
	return rc;
}
