/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a plugin's manifest out of its ELF file.
 *
 * Owns the check that decides whether a file may be mapped at all. The bytes are untrusted:
 * every offset is compared with the file's length first, and no code of the file runs here.
 */
#include <plugin/manager.h>

#include <gelf.h>

#include <plugin/private.h>

#define MANIFEST_FILE_MAX (256U << 20)

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#elif defined(__aarch64__)
#define MACHINE EM_AARCH64
#elif defined(__powerpc64__)
#define MACHINE EM_PPC64
#elif defined(__s390x__)
#define MACHINE EM_S390
#elif defined(__riscv)
#define MACHINE EM_RISCV
#else
#error "name this machine's EM_* number"
#endif

/* A field of the manifest is a string when a NUL ends it inside the field. */
static bool field_ends(const char *field, size_t size)
{
	return memchr(field, '\0', size) != NULL;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	while (n && !*p) {
		p++;
		n--;
	}
	return n == 0;
}

static bool version_valid(const char *version)
{
	for (const char *p = version; *p; p++) {
		if (*p <= ' ' || *p > '~')
			return false;
	}
	return *version != '\0';
}

static int check_requires(const struct pb_manifest *mf, const char *file, struct pb_err *err)
{
	char copy[sizeof(mf->requires)], *save = NULL;

	memcpy(copy, mf->requires, sizeof(copy));
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		if (!pb_name_valid(w))
			return pb_err_set(err, -EINVAL,
					  "%s: the manifest requires \"%.40s\", which is no name "
					  "of a plugin",
					  file, w);
		if (strcmp(w, mf->name) == 0)
			return pb_err_set(err, -EINVAL,
					  "%s: the manifest requires the plugin itself", file);
	}
	return 0;
}

static int check_abi(const struct pb_manifest *mf, const char *file, struct pb_err *err)
{
	if (mf->abi_major != PB_ABI_MAJOR)
		return pb_err_set(err, -EPROTO,
				  "%s: built for plugin ABI %u.%u. This agent offers %u.%u. The "
				  "major numbers must be equal: rebuild the plugin with the SDK of "
				  "this agent",
				  file, mf->abi_major, mf->abi_minor, PB_ABI_MAJOR, PB_ABI_MINOR);
	if (mf->abi_minor > PB_ABI_MINOR)
		return pb_err_set(err, -EPROTO,
				  "%s: built for plugin ABI %u.%u. This agent offers %u.%u. The "
				  "plugin's minor number must not be above the agent's: update the "
				  "agent, or rebuild the plugin with its SDK",
				  file, mf->abi_major, mf->abi_minor, PB_ABI_MAJOR, PB_ABI_MINOR);
	return 0;
}

static int check_strings(const struct pb_manifest *mf, const char *file, struct pb_err *err)
{
	if (!field_ends(mf->name, sizeof(mf->name)) || !pb_name_valid(mf->name))
		return pb_err_set(
			err, -EINVAL,
			"%s: the manifest's name is not made of lower case letters, digits "
			"and inner dashes (at most %d)",
			file, PB_NAME_MAX - 1);
	if (strcmp(mf->name, PB_CORE_NAME) == 0)
		return pb_err_set(err, -EINVAL,
				  "%s: the manifest's name is \"%s\", which stands for the agent "
				  "itself: choose another one",
				  file, mf->name);
	if (!field_ends(mf->version, sizeof(mf->version)) || !version_valid(mf->version))
		return pb_err_set(err, -EINVAL,
				  "%s: the manifest's version is empty or not printable", file);
	if (!field_ends(mf->requires, sizeof(mf->requires)))
		return pb_err_set(err, -EINVAL,
				  "%s: the manifest's list of required plugins "
				  "doesn't end",
				  file);
	return check_requires(mf, file, err);
}

static int check(const uint8_t *data, size_t len, const char *file, struct pb_manifest *ret,
		 struct pb_err *err)
{
	struct pb_manifest mf;
	int rc;

	if (len < sizeof(mf.magic) || memcmp(data, PB_MANIFEST_MAGIC, sizeof(mf.magic)) != 0)
		return pb_err_set(err, -EINVAL,
				  "%s: bad magic in section %s: not made by PB_PLUGIN()", file,
				  PB_MANIFEST_SECTION);
	if (len < sizeof(mf))
		return pb_err_set(err, -EINVAL,
				  "%s: section %s has %zu bytes, a manifest has %zu: the file is "
				  "damaged",
				  file, PB_MANIFEST_SECTION, len, sizeof(mf));
	memcpy(&mf, data, sizeof(mf));
	rc = check_abi(&mf, file, err);
	if (rc < 0)
		return rc;
	if (mf.size < sizeof(mf) || mf.size > len)
		return pb_err_set(err, -EINVAL,
				  "%s: the manifest says it has %u bytes, section %s has %zu", file,
				  mf.size, PB_MANIFEST_SECTION, len);
	if (!all_zero(mf.reserved, sizeof(mf.reserved)) ||
	    !all_zero(data + sizeof(mf), mf.size - sizeof(mf)))
		return pb_err_set(err, -EINVAL,
				  "%s: the manifest's reserved bytes are not zero: the plugin uses "
				  "something that this agent (plugin ABI %u.%u) doesn't know",
				  file, PB_ABI_MAJOR, PB_ABI_MINOR);
	rc = check_strings(&mf, file, err);
	if (rc < 0)
		return rc;
	if (mf.state_schema_min > mf.state_schema)
		return pb_err_set(
			err, -EINVAL,
			"%s: the manifest accepts saved state from version %u on, but its "
			"own is version %u",
			file, mf.state_schema_min, mf.state_schema);
	*ret = mf;
	return 0;
}

/* Section headers and their contents must lie inside the file. */
static int check_bounds(Elf *elf, size_t len, const char *file, struct pb_err *err)
{
	GElf_Ehdr eh;

	if (!gelf_getehdr(elf, &eh))
		return pb_err_set(err, -ENOEXEC, "%s: truncated: the ELF header is cut off", file);
	if (eh.e_type != ET_DYN || eh.e_machine != MACHINE || gelf_getclass(elf) != ELFCLASS64)
		return pb_err_set(err, -ENOEXEC, "%s: not a shared object for this machine", file);
	if (eh.e_shoff == 0)
		return pb_err_set(err, -ENOEXEC,
				  "%s: no section table, so no section %s: not a Patchbay plugin",
				  file, PB_MANIFEST_SECTION);
	/* libelf takes a table that lies outside for none at all. */
	if (eh.e_shoff > len || eh.e_shnum > (len - eh.e_shoff) / sizeof(Elf64_Shdr))
		return pb_err_set(
			err, -ENOEXEC,
			"%s: truncated: the section table lies behind the end of the file", file);
	return 0;
}

static int find_section(Elf *elf, const uint8_t *data, size_t len, const char *file,
			struct pb_manifest *ret, struct pb_err *err)
{
	Elf_Scn *scn = NULL;
	size_t strings = 0;

	if (elf_getshdrstrndx(elf, &strings) < 0)
		return pb_err_set(err, -ENOEXEC, "%s: truncated: no section names", file);
	while ((scn = elf_nextscn(elf, scn))) {
		GElf_Shdr sh;
		const char *name;

		if (!gelf_getshdr(scn, &sh))
			continue;
		name = elf_strptr(elf, strings, sh.sh_name);
		if (!name || strcmp(name, PB_MANIFEST_SECTION) != 0)
			continue;
		if (sh.sh_type != SHT_PROGBITS || sh.sh_offset > len ||
		    sh.sh_size > len - sh.sh_offset)
			return pb_err_set(
				err, -ENOEXEC,
				"%s: truncated: section %s lies behind the end of the file", file,
				PB_MANIFEST_SECTION);
		return check(data + sh.sh_offset, sh.sh_size, file, ret, err);
	}
	return pb_err_set(
		err, -EINVAL,
		"%s: no section %s: not a Patchbay plugin (PB_PLUGIN() makes the section)", file,
		PB_MANIFEST_SECTION);
}

int pb_manifest_parse(const char *file, void *data, size_t len, struct pb_manifest *ret_manifest,
		      struct pb_err *err)
{
	Elf *elf;
	int rc;

	if (len < SELFMAG || memcmp(data, ELFMAG, SELFMAG) != 0)
		return pb_err_set(err, -ENOEXEC, "%s: not an ELF file", file);
	if (len < sizeof(Elf64_Ehdr))
		return pb_err_set(err, -ENOEXEC, "%s: truncated: the ELF header is cut off", file);
	elf_version(EV_CURRENT);
	elf = elf_memory(data, len);
	if (!elf)
		return pb_err_set(err, -ENOEXEC, "%s: not an ELF file: %s", file, elf_errmsg(-1));
	rc = check_bounds(elf, len, file, err);
	if (rc == 0)
		rc = find_section(elf, data, len, file, ret_manifest, err);
	elf_end(elf);
	return rc;
}

int pb_manifest_read(const char *path, struct pb_manifest *ret_manifest, struct pb_err *err)
{
	PB_BUF_FREE struct pb_buf file = {0};
	int rc = pb_file_read(path, MANIFEST_FILE_MAX, &file, err);

	return rc < 0 ? rc : pb_manifest_parse(path, file.data, file.len, ret_manifest, err);
}

cJSON *pb_manifest_json(const struct pb_manifest *manifest, const char *path)
{
	cJSON *o = cJSON_CreateObject();
	PB_FREE char *abi = pb_sprintf("%u.%u", manifest->abi_major, manifest->abi_minor);

	cJSON_AddStringToObject(o, "name", manifest->name);
	cJSON_AddStringToObject(o, "version", manifest->version);
	cJSON_AddStringToObject(o, "abi", abi ? abi : "");
	cJSON_AddNumberToObject(o, "state_schema", manifest->state_schema);
	cJSON_AddNumberToObject(o, "state_schema_min", manifest->state_schema_min);
	cJSON_AddStringToObject(o, "requires", manifest->requires);
	cJSON_AddStringToObject(o, "file", path);
	return o;
}
