/* SPDX-License-Identifier: Apache-2.0 */
/* The listening socket and who may speak on it. */
#include <control/internal.h>

#include <grp.h>
#include <sys/socket.h>

#define GROUPS_MAX 65536

int control_listen(struct pb_control *control, int *ret_fd, struct pb_err *err)
{
	const struct pb_unix opts = {
		.path = control->path,
		.group = control->has_group ? &control->group : NULL,
		.backlog = CONTROL_PEERS_MAX,
		.wait = true,
		.key = "control.socket",
		.other = "agent",
		.remedy = "its own control.socket, agent.run_dir and datapath.bpffs",
	};

	return pb_unix_listen(&opts, ret_fd, &control->file, err);
}

static bool peer_in_group(int fd, gid_t primary, gid_t wanted)
{
	PB_FREE gid_t *groups = NULL;
	socklen_t len = 0;

	if (primary == wanted)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || errno != ERANGE ||
	    len > GROUPS_MAX * sizeof(gid_t))
		return false;
	groups = malloc(len);
	if (!groups || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
		return false;
	for (size_t i = 0; i < len / sizeof(gid_t); i++) {
		if (groups[i] == wanted)
			return true;
	}
	return false;
}

int control_check_peer(const struct pb_control *control, int fd, struct pb_err *err)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return pb_err_set(err, -EACCES, "who asks is unknown: %s", strerror(errno));
	if (cred.uid == 0 || cred.uid == geteuid())
		return 0;
	if (control->has_group && peer_in_group(fd, cred.gid, control->group))
		return 0;
	return pb_err_set(err, -EACCES,
			  "user %u may not use this socket; ask as root or as a member of "
			  "control.group",
			  (unsigned)cred.uid);
}
