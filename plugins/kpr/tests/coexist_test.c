/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether kube-proxy is recognised by what it leaves in a network namespace, and nothing else is
 * taken for it. Each test is in a namespace of its own and makes the traces by netlink.
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libmnl/libmnl.h>

#include "../kpr_coexist.h"

static char what[128];

static void setup(void)
{
	if (unshare(CLONE_NEWNET) < 0)
		cr_skip_test("unshare: %s", strerror(errno));
}

TestSuite(coexist, .init = setup);
TestSuite(coexist_blob);

static struct nlmsghdr *put_head(char *at, uint16_t type, uint8_t family, uint16_t flags)
{
	struct nlmsghdr *head = mnl_nlmsg_put_header(at);
	struct nfgenmsg *nfg;

	head->nlmsg_type = type;
	head->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	nfg = mnl_nlmsg_put_extra_header(head, sizeof(*nfg));
	nfg->nfgen_family = family;
	nfg->version = NFNETLINK_V0;
	if (type == NFNL_MSG_BATCH_BEGIN || type == NFNL_MSG_BATCH_END)
		nfg->res_id = htons(NFNL_SUBSYS_NFTABLES);
	return head;
}

/* A table and, unless NULL, a chain in it. */
static void nft_add(uint8_t family, const char *table, const char *chain)
{
	char buf[4096] __attribute__((aligned(8)));
	struct mnl_socket *nl = mnl_socket_open(NETLINK_NETFILTER);
	struct nlmsghdr *head;
	size_t len;
	ssize_t n;

	if (!nl)
		cr_skip_test("no nfnetlink: %s", strerror(errno));
	head = put_head(buf, NFNL_MSG_BATCH_BEGIN, AF_UNSPEC, 0);
	len = head->nlmsg_len;
	head = put_head(buf + len, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE, family,
			NLM_F_CREATE | NLM_F_ACK);
	mnl_attr_put_strz(head, NFTA_TABLE_NAME, table);
	len += head->nlmsg_len;
	if (chain) {
		head = put_head(buf + len, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN, family,
				NLM_F_CREATE);
		mnl_attr_put_strz(head, NFTA_CHAIN_TABLE, table);
		mnl_attr_put_strz(head, NFTA_CHAIN_NAME, chain);
		len += head->nlmsg_len;
	}
	head = put_head(buf + len, NFNL_MSG_BATCH_END, AF_UNSPEC, 0);
	len += head->nlmsg_len;
	cr_assert_geq(mnl_socket_sendto(nl, buf, len), 0);
	n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
	cr_assert_gt(n, 0);
	head = (struct nlmsghdr *)buf;
	cr_assert_eq(head->nlmsg_type, NLMSG_ERROR);
	if (((struct nlmsgerr *)mnl_nlmsg_get_payload(head))->error != 0)
		cr_skip_test("nftables: %s",
			     strerror(-((struct nlmsgerr *)mnl_nlmsg_get_payload(head))->error));
	mnl_socket_close(nl);
}

static int listen_at(const char *addr, uint16_t port)
{
	struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	cr_assert_eq(inet_pton(AF_INET6, addr, &sin6.sin6_addr), 1);
	cr_assert_eq(bind(fd, (struct sockaddr *)&sin6, sizeof(sin6)), 0);
	cr_assert_eq(listen(fd, 1), 0);
	return fd;
}

Test(coexist, an_empty_namespace_has_no_kube_proxy)
{
	cr_assert(!kpr_coexist_find(what, sizeof(what)));
	cr_assert_str_eq(what, "");
}

Test(coexist, rules_of_others_are_not_taken_for_it)
{
	nft_add(NFPROTO_IPV4, "filter", "INPUT");
	nft_add(NFPROTO_IPV4, "nat", "DOCKER");
	nft_add(NFPROTO_INET, "kube-proxy-not", NULL);
	cr_assert(!kpr_coexist_find(what, sizeof(what)), "%s", what);
}

Test(coexist, its_nftables_table_is_found)
{
	nft_add(NFPROTO_IPV4, "kube-proxy", NULL);
	cr_assert(kpr_coexist_find(what, sizeof(what)));
	cr_assert_str_eq(what, "nftables table ip kube-proxy");
}

Test(coexist, its_nftables_table_for_ipv6_is_found)
{
	nft_add(NFPROTO_IPV6, "kube-proxy", NULL);
	cr_assert(kpr_coexist_find(what, sizeof(what)));
	cr_assert_str_eq(what, "nftables table ip6 kube-proxy");
}

Test(coexist, its_chain_of_iptables_nft_is_found)
{
	nft_add(NFPROTO_IPV4, "nat", "KUBE-SERVICES");
	cr_assert(kpr_coexist_find(what, sizeof(what)));
	cr_assert_str_eq(what, "chain KUBE-SERVICES in nftables table ip nat");
}

static void child_listens(const char *addr, uint16_t port)
{
	int ready[2], done[2];
	char c = 0;
	pid_t pid;

	cr_assert_eq(pipe(ready), 0);
	cr_assert_eq(pipe(done), 0);
	pid = fork();
	if (pid == 0) {
		close(done[1]);
		listen_at(addr, port);
		if (write(ready[1], "1", 1) == 1 && read(done[0], &c, 1) == 0)
			_exit(0);
		_exit(1);
	}
	cr_assert_eq(read(ready[0], &c, 1), 1);
	cr_assert(kpr_coexist_find(what, sizeof(what)));
	close(done[0]);
	close(done[1]);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_assert(!kpr_coexist_find(what, sizeof(what)), "%s", what);
}

Test(coexist, a_process_at_its_ports_is_found)
{
	child_listens("::", 10256);
	child_listens("::", 10249);
}

Test(coexist, a_socket_of_our_own_is_not_taken_for_it)
{
	int fd = listen_at("::", 10256);

	cr_assert(!kpr_coexist_find(what, sizeof(what)), "%s", what);
	close(fd);
}

/* ---- legacy iptables, as the kernel gives it ---- */

/* An entry with an ERROR target. */
static size_t put_entry(char *at, bool ipv6, const char *target, const char *name)
{
	struct xt_error_target error;
	size_t head = ipv6 ? sizeof(struct ip6t_entry) : sizeof(struct ipt_entry);
	size_t next = head + sizeof(error);

	memset(at, 0, next);
	memset(&error, 0, sizeof(error));
	snprintf(error.target.u.user.name, sizeof(error.target.u.user.name), "%s", target);
	snprintf(error.errorname, sizeof(error.errorname), "%s", name);
	error.target.u.target_size = sizeof(error);
	if (ipv6) {
		((struct ip6t_entry *)(void *)at)->target_offset = (uint16_t)head;
		((struct ip6t_entry *)(void *)at)->next_offset = (uint16_t)next;
	} else {
		((struct ipt_entry *)(void *)at)->target_offset = (uint16_t)head;
		((struct ipt_entry *)(void *)at)->next_offset = (uint16_t)next;
	}
	memcpy(at + head, &error, sizeof(error));
	return next;
}

Test(coexist_blob, a_chain_is_found_among_others)
{
	for (int ipv6 = 0; ipv6 < 2; ipv6++) {
		char blob[2048] __attribute__((aligned(8)));
		size_t len = put_entry(blob, ipv6, "", "KUBE-SERVICES");

		len += put_entry(blob + len, ipv6, XT_ERROR_TARGET, "KUBE-SERVICES-NOT");
		cr_assert(!kpr_coexist_has_chain(blob, len, "KUBE-SERVICES", ipv6));
		len += put_entry(blob + len, ipv6, XT_ERROR_TARGET, "KUBE-SERVICES");
		cr_assert(kpr_coexist_has_chain(blob, len, "KUBE-SERVICES", ipv6));
		len += put_entry(blob + len, ipv6, XT_ERROR_TARGET, "ERROR");
		cr_assert(kpr_coexist_has_chain(blob, len, "KUBE-SERVICES", ipv6));
	}
}

Test(coexist_blob, what_is_cut_short_or_makes_no_sense_ends_the_search)
{
	char blob[1024] __attribute__((aligned(8)));
	size_t len = put_entry(blob, false, XT_ERROR_TARGET, "KUBE-SERVICES");

	for (size_t n = 0; n < len; n++)
		cr_assert(!kpr_coexist_has_chain(blob, n, "KUBE-SERVICES", false));
	((struct ipt_entry *)(void *)blob)->next_offset = 0;
	cr_assert(!kpr_coexist_has_chain(blob, len, "KUBE-SERVICES", false));
	((struct ipt_entry *)(void *)blob)->next_offset = (uint16_t)len;
	((struct ipt_entry *)(void *)blob)->target_offset = (uint16_t)(len + 1);
	cr_assert(!kpr_coexist_has_chain(blob, len, "KUBE-SERVICES", false));
}
