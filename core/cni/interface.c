/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host side of a pod's interface.
 *
 * Owns one look into the pod's network namespace: the kernel knows the other end of a veth, the
 * names in prevResult are what somebody wrote down. Comes back to its own namespace at once.
 */
#include <cni/cni.h>

#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <sys/socket.h>

struct end {
	uint32_t ifindex;
	uint32_t peer; /* ifindex of the other end, in its own namespace; 0: none */
	char kind[16]; /* "" for a physical device */
};

/* A netlink socket of the pod's namespace; the process stays in its own. */
static int open_inside(const char *netns, int *ret_fd)
{
	PB_CLOSE int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	PB_CLOSE int inside = open(netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	PB_CLOSE int fd = -1;

	if (own < 0 || inside < 0 || setns(inside, CLONE_NEWNET) < 0)
		return -errno;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (setns(own, CLONE_NEWNET) < 0 || fd < 0)
		return -errno;
	*ret_fd = PB_TAKE_FD(fd);
	return 0;
}

static int ask_link(int fd, const char *ifname, char *answer, size_t size)
{
	struct {
		struct nlmsghdr head;
		struct ifinfomsg info;
		struct rtattr attr;
		char name[IF_NAMESIZE];
	} request = {
		.head = {.nlmsg_len = sizeof(request),
			 .nlmsg_type = RTM_GETLINK,
			 .nlmsg_flags = NLM_F_REQUEST},
		.attr = {.rta_len = sizeof(request.attr) + sizeof(request.name),
			 .rta_type = IFLA_IFNAME},
	};
	ssize_t n;

	snprintf(request.name, sizeof(request.name), "%s", ifname);
	if (send(fd, &request, sizeof(request), 0) < 0)
		return -errno;
	n = recv(fd, answer, size, 0);
	return n < 0 ? -errno : (int)n;
}

static void read_kind(struct rtattr *info, struct end *end)
{
	struct rtattr *attr = RTA_DATA(info);
	int left = (int)RTA_PAYLOAD(info);

	for (; RTA_OK(attr, left); attr = RTA_NEXT(attr, left))
		if (attr->rta_type == IFLA_INFO_KIND)
			snprintf(end->kind, sizeof(end->kind), "%.*s", (int)RTA_PAYLOAD(attr),
				 (const char *)RTA_DATA(attr));
}

static int read_link(const struct nlmsghdr *head, int len, struct end *ret_end)
{
	struct rtattr *attr;
	int left;

	if (!NLMSG_OK(head, (unsigned)len))
		return -EPROTO;
	if (head->nlmsg_type == NLMSG_ERROR)
		return ((const struct nlmsgerr *)NLMSG_DATA(head))->error;
	ret_end->ifindex = (uint32_t)((const struct ifinfomsg *)NLMSG_DATA(head))->ifi_index;
	attr = IFLA_RTA(NLMSG_DATA(head));
	left = (int)IFLA_PAYLOAD(head);
	for (; RTA_OK(attr, left); attr = RTA_NEXT(attr, left)) {
		if (attr->rta_type == IFLA_LINK && RTA_PAYLOAD(attr) == sizeof(uint32_t))
			memcpy(&ret_end->peer, RTA_DATA(attr), sizeof(uint32_t));
		else if ((attr->rta_type & NLA_TYPE_MASK) == IFLA_LINKINFO)
			read_kind(attr, ret_end);
	}
	return 0;
}

static int look(int fd, const char *ifname, struct end *ret_end)
{
	char answer[32768] __attribute__((aligned(8)));
	int rc = ask_link(fd, ifname, answer, sizeof(answer));

	return rc < 0 ? rc : read_link((const struct nlmsghdr *)answer, rc, ret_end);
}

/* Numbers of devices mean something in their own namespace only: both ends must name each other. */
static bool other_end(const struct end *inside, char ret_name[IF_NAMESIZE])
{
	PB_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	struct end outside = {0};

	return fd >= 0 && if_indextoname(inside->peer, ret_name) &&
	       look(fd, ret_name, &outside) == 0 && outside.peer == inside->ifindex &&
	       strcmp(outside.kind, inside->kind) == 0;
}

int cni_interface_find(const struct cni_env *env, const struct cni_conf *conf,
		       char ret_name[IF_NAMESIZE], struct cni_err *err)
{
	struct end end = {0};
	const char *listed = NULL;
	PB_CLOSE int fd = -1;
	int rc = open_inside(env->netns, &fd);

	if (rc == 0)
		rc = look(fd, env->ifname, &end);
	if (rc < 0)
		return cni_fail(err, CNI_TRY_LATER, "the pod's interface was not found",
				"%s in %s: %s", env->ifname, env->netns, strerror(-rc));
	if (strcmp(end.kind, "veth") == 0 || strcmp(end.kind, "netkit") == 0) {
		if (other_end(&end, ret_name))
			return 0;
		return cni_fail(err, CNI_TRY_LATER, "the pod's interface was not found",
				"the other end of %s (number %u) is not in the network namespace "
				"of this process: is the runtime in the host's?",
				env->ifname, end.peer);
	}
	for (uint32_t i = 0; i < conf->n_interfaces; i++)
		if (!conf->interfaces[i].sandbox)
			listed = conf->interfaces[i].name;
	if (!listed || strcmp(end.kind, "macvlan") == 0 || strcmp(end.kind, "ipvlan") == 0)
		return cni_fail(err, CNI_CONFIG, "the pod's interface has no host side",
				"%s is a %s: its packets pass no interface of the node where a "
				"policy could apply; take patchbay-cni out of this network's "
				"plugins",
				env->ifname, end.kind[0] ? end.kind : "physical device");
	snprintf(ret_name, IF_NAMESIZE, "%s", listed);
	return 0;
}
