/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtnetlink requests and events by libmnl.
 *
 * Owns how a socket is set up and read. Nothing here may wait for anything but the kernel's
 * immediate answer.
 */
#include <datapath/netlink.h>

#include <linux/if.h>
#include <linux/pkt_sched.h>

#define NL_BUFFER 32768
/* What one turn of the loop reads at most, so that a storm of events can't stop it. */
#define NL_READS_A_TURN 32

struct pb_nl_monitor {
	uv_poll_t poll;
	struct mnl_socket *nl;
	pb_nl_event_fn fn;
	void *arg;
	void (*closed)(void *arg);
	void *closed_arg;
};

void pb_cleanup_nl(struct mnl_socket **nl)
{
	if (*nl)
		mnl_socket_close(*nl);
}

static int nl_open(uint32_t groups, int flags, struct mnl_socket **ret_socket, struct pb_err *err)
{
	PB_NL_CLOSE struct mnl_socket *nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | flags);

	if (!nl)
		return pb_err_set(err, -errno, "netlink socket: %s", strerror(errno));
	if (mnl_socket_bind(nl, groups, MNL_SOCKET_AUTOPID) < 0)
		return pb_err_set(err, -errno, "netlink socket, groups 0x%x: %s", groups,
				  strerror(errno));
	*ret_socket = PB_TAKE_PTR(nl);
	return 0;
}

int pb_nl_open(struct mnl_socket **ret_socket, struct pb_err *err)
{
	return nl_open(0, 0, ret_socket, err);
}

int pb_nl_talk(struct mnl_socket *nl, struct nlmsghdr *request, mnl_cb_t fn, void *arg)
{
	static unsigned seq;
	unsigned port = mnl_socket_get_portid(nl);
	PB_FREE char *buf = malloc(NL_BUFFER);
	int rc;

	if (!buf)
		return -ENOMEM;
	request->nlmsg_seq = __atomic_add_fetch(&seq, 1, __ATOMIC_RELAXED);
	request->nlmsg_flags |= NLM_F_REQUEST;
	if ((request->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP)
		request->nlmsg_flags |= NLM_F_ACK;
	if (mnl_socket_sendto(nl, request, request->nlmsg_len) < 0)
		return -errno;
	do {
		ssize_t n = mnl_socket_recvfrom(nl, buf, NL_BUFFER);

		if (n < 0)
			return -errno;
		rc = mnl_cb_run(buf, (size_t)n, request->nlmsg_seq, port, fn, arg);
	} while (rc > MNL_CB_STOP);
	return rc < 0 ? -errno : 0;
}

/* ---- devices ---- */

static void link_kind(const struct nlattr *info, struct pb_nl_link *link)
{
	const struct nlattr *attr;

	mnl_attr_for_each_nested (attr, info) {
		if (mnl_attr_get_type(attr) == IFLA_INFO_KIND)
			snprintf(link->kind, sizeof(link->kind), "%s", mnl_attr_get_str(attr));
	}
}

bool pb_nl_link_parse(const struct nlmsghdr *msg, struct pb_nl_link *ret_link)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(msg);
	const struct nlattr *attr;

	if (msg->nlmsg_type != RTM_NEWLINK && msg->nlmsg_type != RTM_DELLINK)
		return false;
	/* A port that leaves its bridge is announced as a deletion too, of family AF_BRIDGE. */
	if (info->ifi_family != AF_UNSPEC)
		return false;
	*ret_link = (struct pb_nl_link){
		.ifindex = (uint32_t)info->ifi_index,
		.loopback = (info->ifi_flags & IFF_LOOPBACK) != 0,
	};
	mnl_attr_for_each (attr, msg, sizeof(*info)) {
		switch (mnl_attr_get_type(attr)) {
		case IFLA_IFNAME:
			snprintf(ret_link->name, sizeof(ret_link->name), "%s",
				 mnl_attr_get_str(attr));
			break;
		case IFLA_MASTER:
			ret_link->master = mnl_attr_get_u32(attr);
			break;
		case IFLA_LINKINFO:
			link_kind(attr, ret_link);
			break;
		}
	}
	return true;
}

static int link_get_cb(const struct nlmsghdr *msg, void *arg)
{
	pb_nl_link_parse(msg, arg);
	return MNL_CB_OK;
}

int pb_nl_link_get(struct mnl_socket *nl, uint32_t ifindex, struct pb_nl_link *ret_link)
{
	char buf[256];
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *info;

	msg->nlmsg_type = RTM_GETLINK;
	info = mnl_nlmsg_put_extra_header(msg, sizeof(*info));
	info->ifi_index = (int)ifindex;
	return pb_nl_talk(nl, msg, link_get_cb, ret_link);
}

struct link_dump {
	pb_nl_link_fn fn;
	void *arg;
};

static int link_dump_cb(const struct nlmsghdr *msg, void *arg)
{
	const struct link_dump *dump = arg;
	struct pb_nl_link link;

	if (pb_nl_link_parse(msg, &link))
		dump->fn(dump->arg, &link);
	return MNL_CB_OK;
}

int pb_nl_link_dump(struct mnl_socket *nl, pb_nl_link_fn fn, void *arg, struct pb_err *err)
{
	struct link_dump dump = {fn, arg};
	int rc = -EINTR;

	for (int i = 0; i < 5 && rc == -EINTR; i++) {
		char buf[256];
		struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);

		msg->nlmsg_type = RTM_GETLINK;
		msg->nlmsg_flags = NLM_F_DUMP;
		mnl_nlmsg_put_extra_header(msg, sizeof(struct ifinfomsg));
		rc = pb_nl_talk(nl, msg, link_dump_cb, &dump);
	}
	if (rc < 0)
		return pb_err_set(err, rc, "list of network devices: %s", strerror(-rc));
	return 0;
}

static int filter_count_cb(const struct nlmsghdr *msg, void *arg)
{
	if (msg->nlmsg_type == RTM_NEWTFILTER)
		(*(int *)arg)++;
	return MNL_CB_OK;
}

int pb_nl_filter_count(struct mnl_socket *nl, uint32_t ifindex, uint32_t parent)
{
	char buf[256];
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
	struct tcmsg *tc;
	int n = 0, rc;

	msg->nlmsg_type = RTM_GETTFILTER;
	msg->nlmsg_flags = NLM_F_DUMP;
	tc = mnl_nlmsg_put_extra_header(msg, sizeof(*tc));
	tc->tcm_ifindex = (int)ifindex;
	tc->tcm_parent = parent;
	rc = pb_nl_talk(nl, msg, filter_count_cb, &n);
	return rc < 0 ? rc : n;
}

/* ---- events ---- */

static int monitor_cb(const struct nlmsghdr *msg, void *arg)
{
	struct pb_nl_monitor *m = arg;

	m->fn(m->arg, msg);
	return MNL_CB_OK;
}

static void monitor_readable(uv_poll_t *poll, int status, int events)
{
	struct pb_nl_monitor *m = poll->data;
	char buf[NL_BUFFER] __attribute__((aligned(8)));

	(void)status;
	(void)events;
	for (int i = 0; i < NL_READS_A_TURN; i++) {
		ssize_t n = mnl_socket_recvfrom(m->nl, buf, sizeof(buf));

		if (n < 0 && errno == ENOBUFS)
			m->fn(m->arg, NULL);
		else if (n < 0)
			return;
		else
			mnl_cb_run(buf, (size_t)n, 0, 0, monitor_cb, m);
	}
}

int pb_nl_monitor_new(uv_loop_t *loop, uint32_t groups, pb_nl_event_fn fn, void *arg,
		      struct pb_nl_monitor **ret_monitor, struct pb_err *err)
{
	PB_FREE struct pb_nl_monitor *m = calloc(1, sizeof(*m));
	PB_NL_CLOSE struct mnl_socket *nl = NULL;
	int rc;

	if (!m)
		return pb_err_set(err, -ENOMEM, "netlink monitor: out of memory");
	rc = nl_open(groups, SOCK_NONBLOCK, &nl, err);
	if (rc < 0)
		return rc;
	rc = uv_poll_init(loop, &m->poll, mnl_socket_get_fd(nl));
	if (rc < 0)
		return pb_err_set(err, rc, "netlink monitor: %s", uv_strerror(rc));
	m->poll.data = m;
	m->fn = fn;
	m->arg = arg;
	m->nl = PB_TAKE_PTR(nl);
	uv_poll_start(&m->poll, UV_READABLE, monitor_readable);
	*ret_monitor = PB_TAKE_PTR(m);
	return 0;
}

static void monitor_closed(uv_handle_t *handle)
{
	PB_FREE struct pb_nl_monitor *m = handle->data;

	mnl_socket_close(m->nl);
	if (m->closed)
		m->closed(m->closed_arg);
}

void pb_nl_monitor_close(struct pb_nl_monitor *monitor, void (*closed)(void *arg), void *arg)
{
	if (!monitor) {
		if (closed)
			closed(arg);
		return;
	}
	monitor->closed = closed;
	monitor->closed_arg = arg;
	uv_close((uv_handle_t *)&monitor->poll, monitor_closed);
}
