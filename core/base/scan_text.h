/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What check and walk share: how blanks and the plain part of strings are passed. Strings are
 * most of an object's text, so they are passed eight bytes at a time.
 */
#ifndef PB_BASE_SCAN_TEXT_H
#define PB_BASE_SCAN_TEXT_H

#include <base/scan.h>

#include <endian.h>

static inline const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
		p++;
	return p;
}

#define EACH_BYTE 0x0101010101010101ULL
#define TOP_BITS (EACH_BYTE << 7)

/* The top bit of each byte of x that is 0 or comes behind one that is. */
static inline uint64_t zero_bytes(uint64_t x)
{
	return (x - EACH_BYTE) & ~x & TOP_BITS;
}

/* pb_scan_plain(), for the loops of these files. */
static inline const char *plain(const char *p, const char *end)
{
	while (end - p >= 8) {
		uint64_t x, hits;

		memcpy(&x, p, sizeof(x));
		x = le64toh(x);
		hits = zero_bytes(x ^ EACH_BYTE * '"') | zero_bytes(x ^ EACH_BYTE * '\\') |
		       ((x - EACH_BYTE * 0x20) & ~x & TOP_BITS);
		if (hits)
			return p + (__builtin_ctzll(hits) >> 3);
		p += 8;
	}
	while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
		p++;
	return p;
}

#endif
