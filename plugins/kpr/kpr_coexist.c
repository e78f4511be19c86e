/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nftables is asked for single objects by name, never for a dump: kube-proxy may have tens of
 * thousands of chains. The tables of legacy iptables can only be read whole; they are read only
 * where they exist, for asking for one would create it.
 */
#include "kpr_coexist.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <linux/sock_diag.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libmnl/libmnl.h>

#define CHAIN "KUBE-SERVICES"
#define TCP_STATE_LISTEN 10
/* What the kernel puts into one datagram of a dump at most. */
#define NL_BUFFER 32768
/* A table larger than this isn't read: it is left to the other traces. */
#define ENTRIES_MAX (64U << 20)

/* ---- nftables ---- */

static bool nft_has(struct mnl_socket *nl, uint8_t family, const char *table, const char *chain)
{
	char buf[NL_BUFFER] __attribute__((aligned(8)));
	struct nlmsghdr *head = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *nfg;
	ssize_t n;

	head->nlmsg_type =
		NFNL_SUBSYS_NFTABLES << 8 | (chain ? NFT_MSG_GETCHAIN : NFT_MSG_GETTABLE);
	head->nlmsg_flags = NLM_F_REQUEST;
	nfg = mnl_nlmsg_put_extra_header(head, sizeof(*nfg));
	nfg->nfgen_family = family;
	nfg->version = NFNETLINK_V0;
	mnl_attr_put_strz(head, chain ? NFTA_CHAIN_TABLE : NFTA_TABLE_NAME, table);
	if (chain)
		mnl_attr_put_strz(head, NFTA_CHAIN_NAME, chain);
	if (mnl_socket_sendto(nl, head, head->nlmsg_len) < 0)
		return false;
	n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
	return n > 0 && mnl_nlmsg_ok((struct nlmsghdr *)buf, (int)n) &&
	       ((struct nlmsghdr *)buf)->nlmsg_type != NLMSG_ERROR;
}

static bool find_nft(char *ret_what, size_t len)
{
	static const uint8_t families[] = {NFPROTO_IPV4, NFPROTO_IPV6};
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	bool found = false;

	if (!nl)
		return false;
	for (int i = 0; i < 2 && !found; i++) {
		const char *family = families[i] == NFPROTO_IPV4 ? "ip" : "ip6";

		found = nft_has(nl, families[i], "kube-proxy", NULL);
		if (found)
			snprintf(ret_what, len, "nftables table %s kube-proxy", family);
		else if (nft_has(nl, families[i], "nat", CHAIN)) {
			snprintf(ret_what, len, "chain " CHAIN " in nftables table %s nat", family);
			found = true;
		}
	}
	mnl_socket_close(nl);
	return found;
}

/* ---- legacy iptables ---- */

/* A chain of the user's begins with an entry whose target is ERROR with the chain's name. */
static bool opens_chain(const char *entry, size_t target_offset, size_t next_offset,
			const char *name)
{
	const struct xt_error_target *target = (const void *)(entry + target_offset);

	return next_offset >= target_offset + sizeof(*target) &&
	       strncmp(target->target.u.user.name, XT_ERROR_TARGET,
		       sizeof(target->target.u.user.name)) == 0 &&
	       strncmp(target->errorname, name, sizeof(target->errorname)) == 0;
}

bool kpr_coexist_has_chain(const void *entries, size_t len, const char *name, bool ipv6)
{
	size_t head = ipv6 ? sizeof(struct ip6t_entry) : sizeof(struct ipt_entry);
	const char *at = entries;

	while (len >= head) {
		size_t target = ipv6 ? ((const struct ip6t_entry *)(const void *)at)->target_offset
				     : ((const struct ipt_entry *)(const void *)at)->target_offset;
		size_t next = ipv6 ? ((const struct ip6t_entry *)(const void *)at)->next_offset
				   : ((const struct ipt_entry *)(const void *)at)->next_offset;

		if (next < head || next > len || target > next)
			return false;
		if (opens_chain(at, target, next, name))
			return true;
		at += next;
		len -= next;
	}
	return false;
}

/* Both families number their socket options and lay out their requests alike. */
/* NOLINTNEXTLINE(misc-redundant-expression): that they are equal is what is asserted */
_Static_assert(IPT_SO_GET_INFO == IP6T_SO_GET_INFO && IPT_SO_GET_ENTRIES == IP6T_SO_GET_ENTRIES,
	       "one code for both");

static bool table_has_chain(int fd, bool ipv6)
{
	int level = ipv6 ? IPPROTO_IPV6 : IPPROTO_IP;
	struct ipt_getinfo info4 = {.name = "nat"};
	struct ip6t_getinfo info6 = {.name = "nat"};
	struct ipt_get_entries *request;
	size_t head = ipv6 ? offsetof(struct ip6t_get_entries, entrytable)
			   : offsetof(struct ipt_get_entries, entrytable);
	socklen_t len = ipv6 ? sizeof(info6) : sizeof(info4);
	uint32_t size;
	bool found = false;

	if (getsockopt(fd, level, IPT_SO_GET_INFO, ipv6 ? (void *)&info6 : (void *)&info4, &len) <
	    0)
		return false;
	size = ipv6 ? info6.size : info4.size;
	request = size <= ENTRIES_MAX ? calloc(1, head + size) : NULL;
	if (!request)
		return false;
	snprintf(request->name, sizeof(request->name), "nat");
	request->size = size;
	len = (socklen_t)(head + size);
	if (getsockopt(fd, level, IPT_SO_GET_ENTRIES, request, &len) == 0)
		found = kpr_coexist_has_chain((const char *)request + head, size, CHAIN, ipv6);
	free(request);
	return found;
}

/* Whether the table "nat" exists: asking iptables for one that doesn't makes it. */
static bool has_nat_table(const char *path)
{
	FILE *f = fopen(path, "re");
	char line[64];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = strcmp(line, "nat\n") == 0;
	if (f)
		fclose(f);
	return found;
}

static bool find_iptables(char *ret_what, size_t len)
{
	bool found = false;

	for (int ipv6 = 0; ipv6 < 2 && !found; ipv6++) {
		int fd;

		if (!has_nat_table(ipv6 ? "/proc/self/net/ip6_tables_names"
					: "/proc/self/net/ip_tables_names"))
			continue;
		fd = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
		if (fd < 0)
			continue;
		found = table_has_chain(fd, ipv6);
		close(fd);
		if (found)
			snprintf(ret_what, len, "chain " CHAIN " in %s table nat",
				 ipv6 ? "ip6tables" : "iptables");
	}
	return found;
}

/* ---- its ports ---- */

/* A socket of this process: an earlier generation of ours may answer /healthz there. */
static bool is_ours(uint32_t inode)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *entry;
	bool ours = false;
	char name[64], link[64];

	snprintf(name, sizeof(name), "socket:[%u]", inode);
	while (dir && !ours && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

		if (n < 0)
			continue;
		link[n] = '\0';
		ours = strcmp(link, name) == 0;
	}
	if (dir)
		closedir(dir);
	return ours;
}

static int on_listener(const struct nlmsghdr *head, void *arg)
{
	const struct inet_diag_msg *msg = mnl_nlmsg_get_payload(head);
	bool *found = arg;

	if (head->nlmsg_len >= NLMSG_LENGTH(sizeof(*msg)) && !is_ours(msg->idiag_inode))
		*found = true;
	return MNL_CB_OK;
}

static bool has_listener(struct mnl_socket *nl, uint8_t family, uint16_t port)
{
	char buf[NL_BUFFER] __attribute__((aligned(8)));
	struct nlmsghdr *head = mnl_nlmsg_put_header(buf);
	struct inet_diag_req_v2 *req;
	bool found = false;
	ssize_t n;

	head->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	head->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	req = mnl_nlmsg_put_extra_header(head, sizeof(*req));
	req->sdiag_family = family;
	req->sdiag_protocol = IPPROTO_TCP;
	req->idiag_states = 1U << TCP_STATE_LISTEN;
	req->id.idiag_sport = htons(port);
	if (mnl_socket_sendto(nl, head, head->nlmsg_len) < 0)
		return false;
	do {
		n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
	} while (n > 0 && mnl_cb_run(buf, (size_t)n, 0, 0, on_listener, &found) == MNL_CB_OK);
	return found;
}

static bool find_listener(char *ret_what, size_t len)
{
	static const struct {
		uint16_t port;
		const char *what;
	} ports[] = {{10256, "healthz"}, {10249, "metrics"}};
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
	bool found = false;

	for (size_t i = 0; nl && i < 2 && !found; i++) {
		found = has_listener(nl, AF_INET, ports[i].port) ||
			has_listener(nl, AF_INET6, ports[i].port);
		if (found)
			snprintf(ret_what, len, "a process listens on its %s port %u",
				 ports[i].what, ports[i].port);
	}
	if (nl)
		mnl_socket_close(nl);
	return found;
}

bool kpr_coexist_find(char *ret_what, size_t len)
{
	ret_what[0] = '\0';
	return find_nft(ret_what, len) || find_iptables(ret_what, len) ||
	       find_listener(ret_what, len);
}
