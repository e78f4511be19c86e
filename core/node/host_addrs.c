/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses of this node's own interfaces. Asked as a whole whenever one comes or goes.
 */
#include <node/internal.h>

#include <linux/if_addr.h>

#include <base/log.h>

/* Two for each of the pods that fit on a node, with room. */
#define HOST_ADDRS_MAX 4096

struct list {
	struct pb_kube_addr *addrs;
	size_t n;
};

static void list_add(struct list *list, int family, const struct nlattr *attr)
{
	struct pb_kube_addr *grown;
	size_t len = family == AF_INET6 ? 16 : 4;

	if (!attr || mnl_attr_get_payload_len(attr) != len || list->n == HOST_ADDRS_MAX)
		return;
	grown = reallocarray(list->addrs, list->n + 1, sizeof(*grown));
	if (!grown)
		return;
	list->addrs = grown;
	grown[list->n] = (struct pb_kube_addr){.family = family == AF_INET6 ? 6 : 4};
	memcpy(grown[list->n].addr.bytes, mnl_attr_get_payload(attr), len);
	list->n++;
}

static int addr_cb(const struct nlmsghdr *msg, void *arg)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(msg);
	const struct nlattr *attr, *own = NULL;

	if (msg->nlmsg_type != RTM_NEWADDR ||
	    (ifa->ifa_family != AF_INET && ifa->ifa_family != AF_INET6))
		return MNL_CB_OK;
	mnl_attr_for_each (attr, msg, sizeof(*ifa)) {
		uint16_t type = mnl_attr_get_type(attr);

		/* With a peer's address, that is IFA_ADDRESS. */
		if (type == IFA_LOCAL || (type == IFA_ADDRESS && !own))
			own = attr;
	}
	list_add(arg, ifa->ifa_family, own);
	return MNL_CB_OK;
}

int node_host_addrs(struct mnl_socket *nl, struct pb_kube_addr **ret_addrs, size_t *ret_n)
{
	struct list list = {0};
	int rc = -EINTR;

	for (int i = 0; i < 5 && rc == -EINTR; i++) {
		char buf[256];
		struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);

		list.n = 0;
		msg->nlmsg_type = RTM_GETADDR;
		msg->nlmsg_flags = NLM_F_DUMP;
		mnl_nlmsg_put_extra_header(msg, sizeof(struct ifaddrmsg));
		rc = pb_nl_talk(nl, msg, addr_cb, &list);
	}
	if (rc < 0) {
		free(list.addrs);
		return rc;
	}
	*ret_addrs = list.addrs;
	*ret_n = list.n;
	return 0;
}
