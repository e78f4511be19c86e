/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places and their names, and programs attached by BPF link: TCX and cgroup.
 *
 * Owns the pins <bpffs>/links/<hook>_<ifindex> and cg_<hook>. A link outlives the process by its
 * pin; removing the pin is what detaches.
 */
#include <datapath/attach.h>

#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <mntent.h>
#include <net/if.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <datapath/datapath.h>

/* Newer than the UAPI headers of Debian 12. */
#define TCX_INGRESS 46
#define TCX_EGRESS 47
#define LINK_TYPE_TCX 11

static const enum bpf_attach_type attach_types[PB_HOOK_COUNT] = {
	[PB_HOOK_POD_EGRESS] = TCX_INGRESS,
	[PB_HOOK_POD_INGRESS] = TCX_EGRESS,
	[PB_HOOK_DEV_INGRESS] = TCX_INGRESS,
	[PB_HOOK_DEV_EGRESS] = TCX_EGRESS,
	[PB_HOOK_CONNECT4] = BPF_CGROUP_INET4_CONNECT,
	[PB_HOOK_CONNECT6] = BPF_CGROUP_INET6_CONNECT,
	[PB_HOOK_SENDMSG4] = BPF_CGROUP_UDP4_SENDMSG,
	[PB_HOOK_SENDMSG6] = BPF_CGROUP_UDP6_SENDMSG,
	[PB_HOOK_RECVMSG4] = BPF_CGROUP_UDP4_RECVMSG,
	[PB_HOOK_RECVMSG6] = BPF_CGROUP_UDP6_RECVMSG,
	[PB_HOOK_GETPEERNAME4] = BPF_CGROUP_INET4_GETPEERNAME,
	[PB_HOOK_GETPEERNAME6] = BPF_CGROUP_INET6_GETPEERNAME,
	[PB_HOOK_BIND4] = BPF_CGROUP_INET4_BIND,
	[PB_HOOK_BIND6] = BPF_CGROUP_INET6_BIND,
	[PB_HOOK_SOCK_RELEASE] = BPF_CGROUP_INET_SOCK_RELEASE,
};

/* ---- places ---- */

const char *pb_how_name(enum pb_attach_how how)
{
	return how == PB_HOW_TCX ? "tcx" : how == PB_HOW_CLSACT ? "clsact" : "cgroup";
}

const char *pb_place_str(const struct pb_place *place, char *buf, size_t len)
{
	char name[IF_NAMESIZE];

	if (place->how == PB_HOW_CGROUP)
		snprintf(buf, len, "socket hook %s", pb_hook_name(place->hook));
	else if (if_indextoname(place->ifindex, name))
		snprintf(buf, len, "device %s (%s, %s)", name, pb_hook_name(place->hook),
			 pb_how_name(place->how));
	else
		snprintf(buf, len, "device number %u (%s, %s)", place->ifindex,
			 pb_hook_name(place->hook), pb_how_name(place->how));
	return buf;
}

char *pb_place_pin(const struct pb_place *place, const char *prefix)
{
	if (place->how == PB_HOW_CGROUP)
		return pb_sprintf("%s/cg_%s", place->dir, pb_hook_name(place->hook));
	return pb_sprintf("%s/%s%s_%u", place->dir, prefix, pb_hook_name(place->hook),
			  place->ifindex);
}

static bool hook_parse(const char *name, size_t len, uint32_t *ret_hook)
{
	for (uint32_t hook = 0; hook < PB_HOOK_COUNT; hook++) {
		const char *known = pb_hook_name(hook);

		if (strlen(known) == len && memcmp(known, name, len) == 0) {
			*ret_hook = hook;
			return true;
		}
	}
	return false;
}

bool pb_place_parse(const char *pin, const char *dir, struct pb_place *ret_place)
{
	struct pb_place p = {.dir = dir, .how = PB_HOW_TCX};
	const char *number;
	char *end;

	if (strncmp(pin, "cg_", 3) == 0) {
		p.how = PB_HOW_CGROUP;
		*ret_place = p;
		return hook_parse(pin + 3, strlen(pin + 3), &ret_place->hook) &&
		       ret_place->hook >= PB_HOOK_TC_COUNT;
	}
	if (strncmp(pin, "clsact_", 7) == 0 || strncmp(pin, "next_", 5) == 0) {
		p.how = PB_HOW_CLSACT;
		pin = strchr(pin, '_') + 1;
	}
	number = strrchr(pin, '_');
	if (!number || !hook_parse(pin, (size_t)(number - pin), &p.hook) ||
	    p.hook >= PB_HOOK_TC_COUNT)
		return false;
	p.ifindex = (uint32_t)strtoul(number + 1, &end, 10);
	*ret_place = p;
	return *end == '\0' && p.ifindex != 0;
}

uint32_t pb_prog_id(int prog_fd)
{
	struct bpf_prog_info info = {0};
	uint32_t len = sizeof(info);

	return bpf_obj_get_info_by_fd(prog_fd, &info, &len) < 0 ? 0 : info.id;
}

bool pb_tcx_supported(int prog_fd)
{
	PB_CLOSE int fd = bpf_link_create(prog_fd, INT32_MAX, TCX_INGRESS, NULL);

	/* A kernel with TCX gets as far as looking for that device, an older one doesn't. */
	return fd < 0 && errno == ENODEV;
}

/* ---- links ---- */

static int link_info(int fd, struct bpf_link_info *ret_info)
{
	uint32_t len = sizeof(*ret_info);

	memset(ret_info, 0, sizeof(*ret_info));
	return bpf_obj_get_info_by_fd(fd, ret_info, &len) < 0 ? -errno : 0;
}

/* A link whose device or cgroup is gone has a zero where its number was. */
static bool link_is_dead(const struct bpf_link_info *info)
{
	return info->type == LINK_TYPE_TCX ? info->xdp.ifindex == 0 : info->cgroup.cgroup_id == 0;
}

static int link_replace(const struct pb_place *place, int link_fd, int prog_fd, struct pb_err *err)
{
	LIBBPF_OPTS(bpf_link_update_opts, opts, .flags = BPF_F_REPLACE);
	struct bpf_link_info info;
	char where[96];
	PB_CLOSE int old_fd = -1;
	int rc = link_info(link_fd, &info);

	pb_place_str(place, where, sizeof(where));
	if (rc < 0)
		return pb_err_set(err, rc,
				  "%s: its pin is no BPF link: %s; run patchbayd --cleanup", where,
				  strerror(-rc));
	if (link_is_dead(&info))
		return pb_err_set(err, -ENOLINK, "%s: is gone", where);
	if (info.prog_id == pb_prog_id(prog_fd))
		return 0;
	old_fd = bpf_prog_get_fd_by_id(info.prog_id);
	if (old_fd < 0)
		return pb_err_set(err, -errno, "%s: program %u, which is attached: %s", where,
				  info.prog_id, strerror(errno));
	opts.old_prog_fd = (uint32_t)old_fd;
	if (bpf_link_update(link_fd, prog_fd, &opts) == 0)
		return 0;
	if (errno == EPERM)
		return pb_err_set(err, -EBUSY,
				  "%s: another process replaced the program at the same time; is a "
				  "second agent using %s?",
				  where, place->dir);
	return pb_err_set(err, -errno, "%s: replacing the program: %s", where, strerror(errno));
}

static const char *cgroup2_mount(char *buf, size_t len)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	const struct mntent *m;

	snprintf(buf, len, "a mounted cgroup2 file system");
	while (mounts && (m = getmntent(mounts))) {
		if (strcmp(m->mnt_type, "cgroup2") == 0) {
			snprintf(buf, len, "%s", m->mnt_dir);
			break;
		}
	}
	if (mounts)
		endmntent(mounts);
	return buf;
}

static int cgroup_open(const char *cgroup, int *ret_fd, struct pb_err *err)
{
	PB_CLOSE int fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct statfs fs;
	char mount[256];

	if (fd < 0)
		return pb_err_set(err, -errno, "datapath.cgroup %s: %s; choose a directory in %s",
				  cgroup, strerror(errno), cgroup2_mount(mount, sizeof(mount)));
	if (fstatfs(fd, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
		return pb_err_set(err, -ENOTSUP,
				  "datapath.cgroup %s: not a cgroup2 directory; choose one in %s",
				  cgroup, cgroup2_mount(mount, sizeof(mount)));
	*ret_fd = PB_TAKE_FD(fd);
	return 0;
}

static int link_attach_error(const struct pb_place *place, int code, struct pb_err *err)
{
	bool cgroup = place->how == PB_HOW_CGROUP;
	const char *remedy = "";
	char where[96];

	if (code == -EPERM && cgroup)
		remedy = "; a program that allows no other is attached to this cgroup or one above "
			 "it, or the agent lacks CAP_BPF and CAP_NET_ADMIN";
	else if (code == -EPERM)
		remedy = "; the agent needs CAP_BPF and CAP_NET_ADMIN";
	else if (code == -EINVAL && cgroup)
		remedy = "; the kernel lacks this hook, Linux 5.18 is the oldest that works";
	else if (code == -EINVAL)
		remedy = "; the kernel has no TCX, set datapath.attach to clsact or auto";
	return pb_err_set(err, code, "%s: attaching the entry program: %s%s",
			  pb_place_str(place, where, sizeof(where)), strerror(-code), remedy);
}

static int link_create(const struct pb_place *place, const char *pin, const char *cgroup,
		       int prog_fd, struct pb_err *err)
{
	PB_CLOSE int cgroup_fd = -1;
	PB_CLOSE int fd = -1;
	char where[96];
	int rc;

	if (place->how == PB_HOW_CGROUP) {
		rc = cgroup_open(cgroup, &cgroup_fd, err);
		if (rc < 0)
			return rc;
	}
	fd = bpf_link_create(prog_fd, cgroup_fd >= 0 ? cgroup_fd : (int)place->ifindex,
			     attach_types[place->hook], NULL);
	if (fd < 0)
		return link_attach_error(place, -errno, err);
	if (bpf_obj_pin(fd, pin) == 0)
		return 0;
	return pb_err_set(err, -errno, "%s: pinning the link at %s: %s; is a bpffs mounted there?",
			  pb_place_str(place, where, sizeof(where)), pin, strerror(errno));
}

int pb_link_attach(const struct pb_place *place, const char *cgroup, int prog_fd,
		   struct pb_err *err)
{
	PB_FREE char *pin = pb_place_pin(place, "");
	PB_CLOSE int fd = -1;

	if (!pin)
		return pb_err_set(err, -ENOMEM, "out of memory");
	fd = bpf_obj_get(pin);
	if (fd >= 0)
		return link_replace(place, fd, prog_fd, err);
	if (errno != ENOENT)
		return pb_err_set(err, -errno, "%s: %s", pin, strerror(errno));
	return link_create(place, pin, cgroup, prog_fd, err);
}

int pb_link_check(const struct pb_place *place, uint32_t prog_id)
{
	PB_FREE char *pin = pb_place_pin(place, "");
	PB_CLOSE int fd = pin ? bpf_obj_get(pin) : -1;
	struct bpf_link_info info;

	if (fd < 0 || link_info(fd, &info) < 0 || link_is_dead(&info))
		return -ENOENT;
	return info.prog_id == prog_id ? 0 : -EBUSY;
}

bool pb_attach_is_on_cgroup(const struct pb_place *place, const char *cgroup)
{
	PB_FREE char *pin = pb_place_pin(place, "");
	PB_CLOSE int fd = pin ? bpf_obj_get(pin) : -1;
	struct bpf_link_info info;
	struct stat st;

	/* A cgroup's number is that of its directory. */
	return fd >= 0 && cgroup && link_info(fd, &info) == 0 && stat(cgroup, &st) == 0 &&
	       info.cgroup.cgroup_id == st.st_ino;
}

int pb_link_detach(const struct pb_place *place, struct pb_err *err)
{
	PB_FREE char *pin = pb_place_pin(place, "");
	PB_CLOSE int fd = pin ? bpf_obj_get(pin) : -1;

	if (!pin)
		return pb_err_set(err, -ENOMEM, "out of memory");
	/* Also works while another process holds the link; a dead one refuses, which is fine. */
	if (fd >= 0)
		bpf_link_detach(fd);
	if (unlink(pin) < 0 && errno != ENOENT)
		return pb_err_set(err, -errno, "%s: %s", pin, strerror(errno));
	return 0;
}

/* ---- either kind ---- */

int pb_attach(const struct pb_place *place, const char *cgroup, int prog_fd, struct pb_err *err)
{
	return place->how == PB_HOW_CLSACT ? pb_clsact_attach(place, prog_fd, err)
					   : pb_link_attach(place, cgroup, prog_fd, err);
}

int pb_attach_check(const struct pb_place *place, uint32_t prog_id)
{
	return place->how == PB_HOW_CLSACT ? pb_clsact_check(place, prog_id)
					   : pb_link_check(place, prog_id);
}

int pb_detach(const struct pb_place *place, struct pb_err *err)
{
	return place->how == PB_HOW_CLSACT ? pb_clsact_detach(place, err)
					   : pb_link_detach(place, err);
}
