/* SPDX-License-Identifier: GPL-2.0-only */
/* Text without the C library's buffers, which would change the tables that are looked at. */

#include "agent.h"

#include <string.h>

static void no_room(void)
{
	fail("an observation is too long");
}

void put_chars(struct text *t, const char *s, size_t n)
{
	if (t->len + n > t->size)
		no_room();
	memcpy(t->start + t->len, s, n);
	t->len += n;
}

/* Most are a few characters: strlen() and memcpy() would take longer. */
void put_str(struct text *t, const char *s)
{
	char *end = t->start + t->size, *p = t->start + t->len;

	while (*s) {
		if (p == end)
			no_room();
		*p++ = *s++;
	}
	t->len = p - t->start;
}

static void put_number(struct text *t, uint64_t n, unsigned base)
{
	char digits[24], *p = digits + sizeof(digits);

	*--p = 0;
	do
		*--p = "0123456789abcdef"[n % base];
	while (n /= base);
	put_str(t, p);
}

void put_hex(struct text *t, uint64_t n)
{
	put_number(t, n, 16);
}

void put_dec(struct text *t, long n)
{
	if (n < 0)
		put_str(t, "-");
	put_number(t, n < 0 ? -(uint64_t)n : (uint64_t)n, 10);
}

static uint32_t crc32(const unsigned char *p, size_t len)
{
	static uint32_t table[256];
	uint32_t crc = ~0u;

	if (!table[1]) {
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t c = i;

			for (int k = 0; k < 8; k++)
				c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
			table[i] = c;
		}
	}
	while (len--)
		crc = table[(crc ^ *p++) & 255] ^ crc >> 8;
	return ~crc;
}

static uint32_t adler32(const unsigned char *p, size_t len)
{
	uint32_t a = 1, b = 0;

	while (len) {
		size_t n = len < 5552 ? len : 5552; /* the most that cannot overflow */

		len -= n;
		while (n--)
			b += a += *p++;
		a %= 65521;
		b %= 65521;
	}
	return b << 16 | a;
}

/* CRC-32 above Adler-32, both as zlib has them. */
uint64_t digest(const struct text *t)
{
	const unsigned char *p = (const unsigned char *)t->start;

	return (uint64_t)crc32(p, t->len) << 32 | adler32(p, t->len);
}
