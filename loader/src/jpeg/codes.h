/* Tables to decode Huffman codes of JPEG by: several symbols with one look. */
#ifndef LOADER_CODES_H
#define LOADER_CODES_H

#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

/* Bits that a look sees. A table of steps then has 8 KiB: those for brightness and for colour fit the nearest cache. */
#define LOOK 11
#define LOOKS (1u << LOOK)

/* Bits there are after a refill, at least. They last for a DC coefficient and three looks. */
#define FILLED 56
_Static_assert(LOOK + 3 * LOOK <= FILLED, "bits run out within a block");

/* Bits that one entry of `skips` takes at most: they last for a DC coefficient and two of these. */
#define MOST_SKIPPED ((FILLED - LOOK) / 2)

/* A step: coefficients that lie in the next LOOK bits with all their bits, and whether the end of the block follows.
 *   bits 0-5    bits to take
 *   bits 6-9    zeros before the first coefficient
 *   bits 10-15  distance to the last thing, the second coefficient or the end of the block, from `at`; 63: no step
 *   bit  16     the end of the block follows
 *   bits 17-22  value of the second coefficient
 *   bits 23-31  value of the first coefficient
 * One coefficient is its own second, and the end alone has a zero before it, which is stored where a zero is. */
#define END (1u << 16)
#define ONE_FURTHER (1u << 10)
#define NO_STEP (63u << 10)
#define TAKEN(step) ((step) & 63)
#define RUN(step) ((step) >> 6 & 15)
#define LAST(step) ((step) >> 10 & 63)
#define ENDS(step) ((step) >> 16 & 1)
#define SECOND(step) ((int32_t)((step) << 9) >> 26)
#define FIRST(step) ((int32_t)(step) >> 23)
#define ZEROS_16 0xF0

struct loader_codes {
    /* What the rest was made from, as in the DHT segment; nothing yet if not `built`. */
    int built, skips_built;
    uint8_t counts[17], symbols[256];
    /* For each length of code: the end of its codes, as 16 bits; the number of its first symbol minus its first code. */
    int32_t limits[18], offsets[17];
    /* What the next LOOK bits begin with: symbol << 8 | length of its code; 0: a longer code, or none. */
    uint16_t found[LOOKS];
    /* AC: see above. DC: difference << 8 | bits to take; 0: no step. */
    uint32_t steps[LOOKS];
    /* AC without values: bits to take, distance to the last symbol << 5, coefficients passed << 10; 0: nothing. */
    uint16_t skips[LOOKS];
};

/* Prepares all but `skips` for a table of DC differences, or one of AC coefficients. Returns 1; 0 if there is no table or
 * it is none. */
int loader_codes_build(struct loader_codes *codes, const JHUFF_TBL *table, int dc);

/* Prepares `skips` of a table of AC coefficients. */
void loader_codes_build_skips(struct loader_codes *codes);

/* EXTEND of T.81, F.2.2.1: values that begin with 0 are negative. */
static inline int extend(int value, int size) { return value < 1 << (size - 1) ? value - (1 << size) + 1 : value; }

#endif
