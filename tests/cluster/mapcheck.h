/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader of kpr's maps that shares no code with the agent, and what it knows of the truth.
 *
 * Two pictures are compared: what the pinned maps hold, and what the API server was told, by the
 * journal of whoever told it. Nothing here may ask the agent.
 *
 * The journal is a text file that only grows. A line is written before a change is sent and again
 * when the server has acknowledged it; between the two both states are possible:
 *
 *   TIME service NAME sent|done [FRONTEND]         no frontend: the Service goes, is gone
 *   TIME slice SERVICE/SLICE sent|done [ENDPOINT[?]...]    all usable endpoints of that slice
 *   TIME cut                                       the agent can't hear the server any more
 *   TIME joined                                    it has heard of everything again
 *
 * TIME is nanoseconds of CLOCK_REALTIME, FRONTEND is tcp/10.96.0.1:80, ENDPOINT is 10.1.2.3:8080
 * or [fd00::1]:8080. A question mark: may be used, need not be. Every Service has one port.
 *
 * Wrong is, at the time of reading t, with w = t - grace, or, from a cut until the grace time after
 * it was joined, w = time of the cut - grace:
 *   - a backend that was possible at no time since w, or one that a frontend has
 *     twice in two readings in a row;
 *   - the absence of a backend or frontend that was certain all the time since w;
 *   - a frontend that no line has named since w, or whose Service is gone since before w.
 */
#ifndef MAPCHECK_H
#define MAPCHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MC_SECOND 1000000000ULL

struct mc_endpoint {
	uint8_t addr[16];
	uint16_t port;	  /* host order */
	uint8_t family;	  /* 4 or 6 */
	uint8_t protocol; /* of a frontend; 0 in a backend */
};

#define MC_ENDPOINT_TEXT 64

/* Reads "tcp/1.2.3.4:80", "1.2.3.4:80" or "[::1]:80"; false when it is none of them. */
bool mc_endpoint_parse(const char *text, struct mc_endpoint *ret);
const char *mc_endpoint_text(const struct mc_endpoint *ep, char *out);

/* ---- the maps ---- */

struct mc_frontend {
	struct mc_endpoint at;
	struct mc_endpoint *backends;
	uint32_t n_backends;
	bool unsettled; /* it changed under the reader each time it looked */
};

struct mc_picture {
	struct mc_frontend *frontends;
	uint32_t n_frontends;
};

struct mc_maps;

/* Opens the maps pinned below `dir`. NULL, with a message on standard error, when it can't. */
struct mc_maps *mc_maps_open(const char *dir);
/* Reads every frontend with its backends. 0, or a negative errno. Free with mc_picture_free(). */
int mc_maps_read(struct mc_maps *maps, struct mc_picture *ret);
void mc_picture_free(struct mc_picture *picture);
/* Replaces one backend of a frontend behind the agent's back. Returns 0 or a negative errno. */
int mc_maps_spoil(struct mc_maps *maps, const struct mc_endpoint *at, const struct mc_endpoint *put,
		  struct mc_endpoint *ret_before);
/* Removes a frontend behind the agent's back. Returns 0 or a negative errno. */
int mc_maps_drop(struct mc_maps *maps, const struct mc_endpoint *at);
void mc_maps_close(struct mc_maps *maps);

/* ---- the truth ---- */

struct mc_truth;

struct mc_truth *mc_truth_open(const char *journal);
/* Takes in the lines that came since. False when one makes no sense: it is printed. */
bool mc_truth_follow(struct mc_truth *truth);
/* How many things are wrong with the picture taken at `now`; each is printed to `out`. */
unsigned mc_truth_judge(struct mc_truth *truth, const struct mc_picture *picture, uint64_t now,
			uint64_t grace, bool others, FILE *out);
void mc_truth_close(struct mc_truth *truth);

#endif
