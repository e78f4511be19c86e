/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers (patchbay/reply.h) on a real veth: sockets of a pod and of the node must understand
 * them, by whichever hook they are sent.
 */
#include "sandbox.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <tests/bpf/reply.skel.h>

#include "reply.h"

TestSuite(reply_net, .init = sandbox_enter, .fini = sandbox_leave);

#define TCX_INGRESS 46
#define TCX_EGRESS 47
#define PATIENCE_MS 5000 /* until an answer counts as missing */

static struct pb_dp_object *object;
static int node_ns, pod_ns;

__attribute__((format(printf, 1, 2))) static void sh(const char *format, ...)
{
	char command[256];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	cr_assert_eq(system(command), 0, "%s", command);
}

static void go_to(int ns)
{
	cr_assert_eq(setns(ns, CLONE_NEWNET), 0);
}

/* Addresses beyond the other end, and its MAC, so that nothing has to be asked for. */
static void set_up(const char *dev, const char *host, const char *peer_mac)
{
	sh("ip link set lo up && ip link set %s up", dev);
	sh("ip addr add 10.0.0.%s/24 dev %s && ip -6 addr add fd00::%s/64 dev %s nodad", host, dev,
	   host, dev);
	for (int v6 = 0; v6 < 2; v6++) {
		const char *gw = v6 ? "fd00::99" : "10.0.0.99";

		sh("ip neigh add %s lladdr %s dev %s nud permanent", gw, peer_mac, dev);
		sh("ip %s route add default via %s dev %s", v6 ? "-6" : "-4", gw, dev);
	}
}

static void open_veth(void)
{
	node_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	cr_assert_eq(unshare(CLONE_NEWNET), 0);
	pod_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	go_to(node_ns);
	sh("ip link add vhost address 02:00:00:00:00:01 type veth peer name vpod "
	   "address 02:00:00:00:00:02");
	sh("ip link set vpod netns /proc/%d/fd/%d", getpid(), pod_ns);
	set_up("vhost", "1", "02:00:00:00:00:02");
	go_to(pod_ns);
	set_up("vpod", "2", "02:00:00:00:00:01");
	go_to(node_ns);
	sandbox_open();
}

/* The chain of `hook` answers, on the host's end of the veth. Closing the fd takes it off. */
static int answer_on(uint32_t hook, const struct reply_plan *plan)
{
	const bool in = hook == PB_HOOK_POD_EGRESS || hook == PB_HOOK_DEV_INGRESS;
	struct pb_dp_slot slot;
	uint32_t zero = 0;
	size_t len;
	const void *elf = reply_bpf__elf_bytes(&len);
	int link;

	object = sandbox_object("reply", "reply", elf, len);
	slot = sandbox_slot(hook, PB_BAND_SERVICE, object, "answer", "reply_answer");
	sandbox_chain(&slot, 1, hook);
	cr_assert_eq(bpf_map_update_elem(pb_object_map(object, "reply_plan")->fd, &zero, plan, 0),
		     0);
	link = bpf_link_create(sandbox.dp->entry_fd[hook], (int)if_nametoindex("vhost"),
			       in ? TCX_INGRESS : TCX_EGRESS, NULL);
	cr_assert_geq(link, 0, "TCX: %s", strerror(-link));
	return link;
}

static void stop_answering(int link)
{
	close(link);
	pb_dp_object_free(object);
}

/* Whether the kernel leaves checksums of what it sends to the host's end to that device. */
static void leave_sums_to_device(bool on)
{
	struct ethtool_value value = {.cmd = ETHTOOL_STXCSUM, .data = on};
	struct ifreq ifr = {.ifr_name = "vhost", .ifr_data = (char *)&value};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	cr_assert_eq(ioctl(fd, SIOCETHTOOL, &ifr), 0, "%s", strerror(errno));
	close(fd);
}

/* ---- asking ---- */

static int open_socket(const char *address, int type, struct sockaddr_storage *ret_to,
		       socklen_t *ret_len)
{
	struct sockaddr_in *in = (void *)ret_to;
	struct sockaddr_in6 *in6 = (void *)ret_to;
	bool v6 = strchr(address, ':');

	memset(ret_to, 0, sizeof(*ret_to));
	ret_to->ss_family = v6 ? AF_INET6 : AF_INET;
	in->sin_port = htons(80);
	cr_assert_eq(inet_pton(ret_to->ss_family, address,
			       v6 ? (void *)&in6->sin6_addr : (void *)&in->sin_addr),
		     1);
	*ret_len = v6 ? sizeof(*in6) : sizeof(*in);
	return socket(ret_to->ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* The error that the socket gets for what it sends; 0: none in time. */
static int error_of(const char *address, int type, size_t bytes, int *ret_mtu)
{
	static const char data[2000];
	struct sockaddr_storage to;
	struct pollfd p;
	socklen_t len;
	bool v6;
	int err = 0, one = 1, probe = IP_PMTUDISC_DO;

	p.fd = open_socket(address, type, &to, &len);
	v6 = to.ss_family == AF_INET6;
	p.events = type == SOCK_STREAM ? POLLOUT : POLLIN;
	cr_assert_geq(p.fd, 0);
	setsockopt(p.fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVERR : IP_RECVERR, &one,
		   sizeof(one));
	setsockopt(p.fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER,
		   &probe, sizeof(probe));
	if (connect(p.fd, (struct sockaddr *)&to, len) < 0 && errno != EINPROGRESS)
		err = errno;
	if (type == SOCK_DGRAM && send(p.fd, data, bytes, 0) < 0)
		err = errno;
	if (!err && poll(&p, 1, PATIENCE_MS) == 1) {
		len = sizeof(err);
		getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &err, &len);
	}
	len = sizeof(*ret_mtu);
	if (ret_mtu)
		getsockopt(p.fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU, ret_mtu,
			   &len);
	close(p.fd);
	return err;
}

/* Addresses beyond the other end. */
#define FAR4 "192.0.2.7"
#define FAR6 "2001:db8::7"

/* Whose packets the hook sees. */
static const struct {
	uint32_t hook;
	bool by_pod;
} hooks[] = {
	{PB_HOOK_POD_EGRESS, true},
	{PB_HOOK_DEV_INGRESS, true},
	{PB_HOOK_POD_INGRESS, false},
	{PB_HOOK_DEV_EGRESS, false},
};

Test(reply_net, a_rejected_call_fails_at_once_at_every_hook)
{
	const struct reply_plan plan = {.what = REPLY_REJECT};

	open_veth();
	for (size_t i = 0; i < PB_ARRAY_LEN(hooks); i++) {
		int link = answer_on(hooks[i].hook, &plan);

		go_to(hooks[i].by_pod ? pod_ns : node_ns);
		cr_expect_eq(error_of(FAR4, SOCK_STREAM, 0, NULL), ECONNREFUSED, "%zu", i);
		cr_expect_eq(error_of(FAR6, SOCK_STREAM, 0, NULL), ECONNREFUSED, "%zu", i);
		cr_expect_eq(error_of(FAR4, SOCK_DGRAM, 5, NULL), ECONNREFUSED, "%zu", i);
		cr_expect_eq(error_of(FAR6, SOCK_DGRAM, 5, NULL), ECONNREFUSED, "%zu", i);
		go_to(node_ns);
		cr_expect_geq(sandbox_drops(hooks[i].hook, PB_REASON_NO_SERVICE), 4, "%zu", i);
		stop_answering(link);
	}
}

Test(reply_net, a_call_to_a_translated_address_is_rejected_by_the_address_that_was_called)
{
	struct reply_plan plan = {.what = REPLY_REJECT, .port = htons(8080)};
	int link;

	open_veth();
	inet_pton(AF_INET, "10.244.3.9", &plan.to);
	link = answer_on(PB_HOOK_POD_EGRESS, &plan);
	go_to(pod_ns);
	cr_expect_eq(error_of(FAR4, SOCK_STREAM, 0, NULL), ECONNREFUSED);
	cr_expect_eq(error_of(FAR4, SOCK_DGRAM, 5, NULL), ECONNREFUSED);
	go_to(node_ns);
	stop_answering(link);
}

/* The pod leaves the sum of its SYN to the device; whoever completes it later must find it so. */
Test(reply_net, a_reset_is_right_when_the_kernel_completes_its_sum_on_the_way)
{
	const struct reply_plan plan = {.what = REPLY_REJECT};
	int link;

	open_veth();
	leave_sums_to_device(false);
	link = answer_on(PB_HOOK_POD_EGRESS, &plan);
	go_to(pod_ns);
	cr_expect_eq(error_of(FAR4, SOCK_STREAM, 0, NULL), ECONNREFUSED);
	cr_expect_eq(error_of(FAR6, SOCK_STREAM, 0, NULL), ECONNREFUSED);
	go_to(node_ns);
	stop_answering(link);
}

Test(reply_net, a_pod_learns_the_MTU_and_that_a_packet_went_too_far)
{
	struct reply_plan plan = {.what = REPLY_TOO_BIG, .mtu = 1400};
	int link, mtu = 0;

	open_veth();
	link = answer_on(PB_HOOK_POD_EGRESS, &plan);
	go_to(pod_ns);
	cr_expect_eq(error_of(FAR4, SOCK_DGRAM, 1450, &mtu), EMSGSIZE);
	cr_expect_eq(mtu, 1400);
	cr_expect_eq(error_of(FAR6, SOCK_DGRAM, 1450, &mtu), EMSGSIZE);
	cr_expect_eq(mtu, 1400);
	go_to(node_ns);
	stop_answering(link);
	plan.what = REPLY_TTL;
	inet_pton(AF_INET, "172.18.0.3", &plan.src);
	link = answer_on(PB_HOOK_POD_EGRESS, &plan);
	go_to(pod_ns);
	cr_expect_eq(error_of("192.0.2.8", SOCK_DGRAM, 5, NULL), EHOSTUNREACH);
	go_to(node_ns);
	stop_answering(link);
}
