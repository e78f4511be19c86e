/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the identities and the plugins: neither room knows the other, so what one asks of the
 * other goes through here.
 */
#include <agent_private.h>

static int cidr_hold(void *arg, const void *owner, const struct pb_cidr *cidr,
		     uint32_t *ret_identity)
{
	return pb_peers_cidr_hold(arg, owner, cidr, ret_identity);
}

static int cidr_release(void *arg, const void *owner, const struct pb_cidr *cidr)
{
	return pb_peers_cidr_release(arg, owner, cidr);
}

static void cidr_release_all(void *arg, const void *owner)
{
	pb_peers_cidr_release_all(arg, owner);
}

static int publish(void *arg, const char *topic, uint32_t version, const char *key,
		   const void *value, size_t len)
{
	return pb_manager_publish(arg, topic, version, key, value, len);
}

static void synced(void *arg, const char *topic)
{
	pb_manager_synced(arg, topic);
}

struct pb_manager_cidr_ops agent_cidr_ops(struct pb_agent *agent)
{
	return (struct pb_manager_cidr_ops){.hold = cidr_hold,
					    .release = cidr_release,
					    .release_all = cidr_release_all,
					    .arg = agent->peers};
}

void agent_publish_peers(struct pb_agent *agent)
{
	const struct pb_peers_topics topics = {.publish = publish,
					       .synced = synced,
					       .arg = agent->manager};

	pb_peers_publish_to(agent->peers, &topics);
}
