/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest: which files may be mapped, and what is said about the others. */
#include <criterion/criterion.h>

#include <elf.h>

#include <plugin/manager.h>

/* The smallest shared object with a manifest: header, manifest, section names, section table. */
struct image {
	Elf64_Ehdr eh;
	struct pb_manifest mf;
	char names[32];
	Elf64_Shdr sh[3];
};

static struct image good(void)
{
	struct image im = {
		.eh = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
				   EV_CURRENT},
		       .e_type = ET_DYN,
		       .e_version = EV_CURRENT,
		       .e_shoff = offsetof(struct image, sh),
		       .e_ehsize = sizeof(Elf64_Ehdr),
		       .e_shentsize = sizeof(Elf64_Shdr),
		       .e_shnum = 3,
		       .e_shstrndx = 2},
		.mf = {.magic = {'P', 'A', 'T', 'C', 'H', 'B', 'A', 'Y'},
		       .size = sizeof(struct pb_manifest),
		       .abi_major = PB_ABI_MAJOR,
		       .abi_minor = PB_ABI_MINOR,
		       .state_schema = 2,
		       .state_schema_min = 1,
		       .name = "kpr",
		       .version = "1.0.0",
		       .requires = "endpointslice"},
		.names = "\0.pb_manifest\0.shstrtab",
	};
#if defined(__x86_64__)
	im.eh.e_machine = EM_X86_64;
#elif defined(__aarch64__)
	im.eh.e_machine = EM_AARCH64;
#endif
	im.sh[1] = (Elf64_Shdr){.sh_name = 1,
				.sh_type = SHT_PROGBITS,
				.sh_offset = offsetof(struct image, mf),
				.sh_size = sizeof(struct pb_manifest)};
	im.sh[2] = (Elf64_Shdr){.sh_name = 14,
				.sh_type = SHT_STRTAB,
				.sh_offset = offsetof(struct image, names),
				.sh_size = sizeof(im.names)};
	return im;
}

Test(manifest, a_good_file_is_read)
{
	struct image im = good();
	struct pb_manifest mf;
	struct pb_err err = {0};
	PB_JSON_FREE cJSON *json = NULL;

	cr_assert_eq(pb_manifest_parse("f.so", &im, sizeof(im), &mf, &err), 0, "%s", err.text);
	cr_expect_str_eq(mf.name, "kpr");
	json = pb_manifest_json(&mf, "f.so");
	cr_expect_str_eq(pb_json_str(json, "abi", ""), "1.2");
	cr_expect_str_eq(pb_json_str(json, "requires", ""), "endpointslice");
}

Test(manifest, a_file_for_an_older_minor_is_read)
{
	struct image im = good();
	struct pb_manifest mf;
	struct pb_err err = {0};

	im.mf.abi_minor = 0;
	cr_expect_eq(pb_manifest_parse("f.so", &im, sizeof(im), &mf, &err), 0, "%s", err.text);
}

static void no_magic(struct image *im)
{
	im->mf.magic[0] = 'p';
}

static void major(struct image *im)
{
	im->mf.abi_major = 3;
	/* A later major may have changed everything behind it: it is looked at first. */
	im->mf.reserved[0] = 1;
}

static void minor(struct image *im)
{
	im->mf.abi_minor = 9;
}

static void core_name(struct image *im)
{
	strcpy(im->mf.name, "core");
}

static void short_size(struct image *im)
{
	im->mf.size = 100;
}

static void long_size(struct image *im)
{
	im->mf.size = 300;
}

static void tail(struct image *im)
{
	im->mf.reserved[39] = 1;
}

static void upper_case(struct image *im)
{
	im->mf.name[0] = 'K';
}

static void path_in_name(struct image *im)
{
	strcpy(im->mf.name, "../kpr");
}

static void endless_name(struct image *im)
{
	memset(im->mf.name, 'a', sizeof(im->mf.name));
}

static void no_version(struct image *im)
{
	im->mf.version[0] = '\0';
}

static void endless_requires(struct image *im)
{
	memset(im->mf.requires, 'a', sizeof(im->mf.requires));
}

static void requires_nonsense(struct image *im)
{
	strcpy(im->mf.requires, "endpointslice Foo");
}

static void requires_itself(struct image *im)
{
	strcpy(im->mf.requires, "kpr");
}

static void schemas(struct image *im)
{
	im->mf.state_schema_min = 3;
}

static void other_section(struct image *im)
{
	im->names[1] = '_';
}

static void no_sections(struct image *im)
{
	im->eh.e_shoff = 0;
}

static void table_outside(struct image *im)
{
	im->eh.e_shoff = sizeof(*im) - 1;
}

static void section_outside(struct image *im)
{
	im->sh[1].sh_offset = sizeof(*im) - 8;
}

static void section_wraps(struct image *im)
{
	im->sh[1].sh_size = UINT64_MAX - 8;
}

static void short_section(struct image *im)
{
	im->sh[1].sh_size = 64;
}

static void executable(struct image *im)
{
	im->eh.e_type = ET_EXEC;
}

static void other_machine(struct image *im)
{
	im->eh.e_machine = EM_SPARC;
}

static void text_file(struct image *im)
{
	memcpy(im, "#!/b", 4);
}

#define NOT_A_NAME                                                                                 \
	"f.so: the manifest's name is not made of lower case letters, digits and inner dashes "    \
	"(at most 31)"

static const struct {
	void (*damage)(struct image *im);
	int rc;
	const char *text;
} cases[] = {
	{text_file, -ENOEXEC, "f.so: not an ELF file"},
	{executable, -ENOEXEC, "f.so: not a shared object for this machine"},
	{other_machine, -ENOEXEC, "f.so: not a shared object for this machine"},
	{no_sections, -ENOEXEC,
	 "f.so: no section table, so no section .pb_manifest: not a Patchbay plugin"},
	{table_outside, -ENOEXEC,
	 "f.so: truncated: the section table lies behind the end of the file"},
	{section_outside, -ENOEXEC,
	 "f.so: truncated: section .pb_manifest lies behind the end of the file"},
	{section_wraps, -ENOEXEC,
	 "f.so: truncated: section .pb_manifest lies behind the end of the file"},
	{other_section, -EINVAL,
	 "f.so: no section .pb_manifest: not a Patchbay plugin (PB_PLUGIN() makes the section)"},
	{no_magic, -EINVAL, "f.so: bad magic in section .pb_manifest: not made by PB_PLUGIN()"},
	{short_section, -EINVAL,
	 "f.so: section .pb_manifest has 64 bytes, a manifest has 256: the file is damaged"},
	{major, -EPROTO,
	 "f.so: built for plugin ABI 3.2. This agent offers 1.2. The major numbers must be equal: "
	 "rebuild the plugin with the SDK of this agent"},
	{core_name, -EINVAL,
	 "f.so: the manifest's name is \"core\", which stands for the agent itself: choose another "
	 "one"},
	{minor, -EPROTO,
	 "f.so: built for plugin ABI 1.9. This agent offers 1.2. The plugin's minor number must "
	 "not be above the agent's: update the agent, or rebuild the plugin with its SDK"},
	{short_size, -EINVAL,
	 "f.so: the manifest says it has 100 bytes, section .pb_manifest has 256"},
	{long_size, -EINVAL,
	 "f.so: the manifest says it has 300 bytes, section .pb_manifest has 256"},
	{tail, -EINVAL,
	 "f.so: the manifest's reserved bytes are not zero: the plugin uses something that this "
	 "agent (plugin ABI 1.2) doesn't know"},
	{upper_case, -EINVAL, NOT_A_NAME},
	{path_in_name, -EINVAL, NOT_A_NAME},
	{endless_name, -EINVAL, NOT_A_NAME},
	{no_version, -EINVAL, "f.so: the manifest's version is empty or not printable"},
	{endless_requires, -EINVAL, "f.so: the manifest's list of required plugins doesn't end"},
	{requires_nonsense, -EINVAL,
	 "f.so: the manifest requires \"Foo\", which is no name of a plugin"},
	{requires_itself, -EINVAL, "f.so: the manifest requires the plugin itself"},
	{schemas, -EINVAL,
	 "f.so: the manifest accepts saved state from version 3 on, but its own is version 2"},
};

Test(manifest, each_damage_has_its_own_text)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct image im = good();
		struct pb_manifest mf;
		struct pb_err err = {0};

		cases[i].damage(&im);
		cr_expect_eq(pb_manifest_parse("f.so", &im, sizeof(im), &mf, &err), cases[i].rc,
			     "case %zu: %s", i, err.text);
		cr_expect_str_eq(err.text, cases[i].text);
	}
}

Test(manifest, no_length_of_a_cut_file_is_accepted)
{
	for (size_t len = 0; len < sizeof(struct image); len++) {
		struct image im = good();
		struct pb_manifest mf;
		struct pb_err err = {0};
		PB_FREE char *copy = malloc(len + 1);

		memcpy(copy, &im, len);
		cr_assert_lt(pb_manifest_parse("f.so", copy, len, &mf, &err), 0, "%zu bytes", len);
		cr_assert_neq(err.text[0], '\0');
	}
}

Test(manifest, a_longer_manifest_of_a_later_minor_is_fine_when_its_tail_is_zero)
{
	struct {
		struct image im;
		char tail[64];
	} file = {.im = good()};
	struct pb_manifest mf;
	struct pb_err err = {0};

	/* given a manifest section that goes on behind what this agent knows */
	file.im.mf.size = sizeof(struct pb_manifest) + 16;
	file.im.sh[1].sh_size = sizeof(struct pb_manifest) + 16;
	memset(file.im.names, 0, 16);
	memcpy(file.im.names + 16, ".pb_manifest", 13);
	file.im.sh[1].sh_name = 16;
	file.im.sh[2].sh_name = 0;
	cr_expect_eq(pb_manifest_parse("f.so", &file, sizeof(file), &mf, &err), 0, "%s", err.text);
	/* when one byte of it is set, then the plugin wants something unknown */
	file.im.names[8] = 1;
	cr_expect_eq(pb_manifest_parse("f.so", &file, sizeof(file), &mf, &err), -EINVAL);
}
