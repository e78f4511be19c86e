/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the path in a request's header block (RFC 7541). Of the Huffman code only the printable
 * characters are known; it is canonical, so their lengths and order are the whole table. The
 * dynamic table isn't kept: no client puts a path there.
 */
#include "h2_hpack.h"

#define CODE_MAX 15

struct block {
	const unsigned char *p;
	const unsigned char *end;
	bool broken;
};

static unsigned take_number(struct block *b, unsigned bits)
{
	unsigned max = (1U << bits) - 1, n = b->p < b->end ? *b->p++ & max : 0, shift = 0;

	if (n < max)
		return n;
	while (b->p < b->end && shift < 21) {
		n += (*b->p & 0x7fU) << shift;
		shift += 7;
		if (!(*b->p++ & 0x80))
			return n;
	}
	b->broken = true;
	return 0;
}

/* The symbols by the length of their code, in the order of their codes. */
static const struct {
	unsigned n;
	const char *symbols;
} codes[CODE_MAX + 1] = {
	[5] = {10, "012aceiost"},
	[6] = {26, " %-./3456789=A_bdfghlmnpru"},
	[7] = {32, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"},
	[8] = {6, "&*,;XZ"},
	[10] = {5, "!\"()?"},
	[11] = {3, "'+|"},
	[12] = {2, "#>"},
	[13] = {6, "\0$@[]~"},
	[14] = {2, "^}"},
	[15] = {3, "<`{"},
};

/* The symbol at *bit, or -1 where only padding is left. */
static int take_symbol(const unsigned char *p, size_t n_bits, size_t *bit)
{
	unsigned code = 0, first = 0;

	for (unsigned len = 1; len <= CODE_MAX && *bit < n_bits; len++, (*bit)++) {
		code = code << 1 | (p[*bit / 8] >> (7 - *bit % 8) & 1U);
		first <<= 1;
		if (code - first < codes[len].n) {
			(*bit)++;
			return (unsigned char)codes[len].symbols[code - first];
		}
		first += codes[len].n;
	}
	return -1;
}

static void take_text(struct block *b, char *buf, size_t size)
{
	bool huffman = b->p < b->end && *b->p & 0x80;
	size_t len = take_number(b, 7), at = 0, bit = 0;
	int symbol;

	if (b->broken || len > (size_t)(b->end - b->p)) {
		b->broken = true;
		return;
	}
	if (huffman)
		while (at + 1 < size && (symbol = take_symbol(b->p, len * 8, &bit)) >= 0)
			buf[at++] = (char)symbol;
	else
		for (; at + 1 < size && at < len; at++)
			buf[at] = (char)b->p[at];
	buf[at] = '\0';
	b->p += len;
}

bool h2_hpack_path(const unsigned char *p, size_t len, char *path, size_t size)
{
	struct block b = {p, p + len, false};
	char other[512];
	bool found = false;

	while (b.p < b.end && !b.broken) {
		unsigned index;

		if (*b.p & 0x80) {
			take_number(&b, 7);
			continue;
		}
		if ((*b.p & 0xe0) == 0x20) {
			take_number(&b, 5);
			continue;
		}
		index = take_number(&b, *b.p & 0x40 ? 6 : 4);
		if (index == 0)
			take_text(&b, other, sizeof(other));
		/* 4 and 5 are ":path" in the static table. */
		if (index == 4 || index == 5)
			take_text(&b, path, size);
		else
			take_text(&b, other, sizeof(other));
		found = found || index == 4 || index == 5;
	}
	return found && !b.broken;
}
