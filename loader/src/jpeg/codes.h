/* Tables for decoding the Huffman codes of JPEG: several symbols with one lookup. */
#ifndef LOADER_CODES_H
#define LOADER_CODES_H

#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

/* Number of bits of the lookahead. A table of steps then has 8 KiB: those for luma and chroma fit the L1 cache
 * together. */
#define LOOKAHEAD 11
#define LOOKAHEAD_ENTRIES (1u << LOOKAHEAD)

/* Minimum number of bits after a refill. They suffice for a DC coefficient and three lookups. */
#define FILLED 56
_Static_assert(LOOKAHEAD + 3 * LOOKAHEAD <= FILLED, "bits run out within a block");

/* Maximum number of bits that one entry of `skips` takes: a refill suffices for a DC coefficient and two of these. */
#define MAX_SKIPPED ((FILLED - LOOKAHEAD) / 2)

/* A step: the coefficients that are in the next LOOKAHEAD bits with all their bits, and whether the end of the block
 * follows.
 *   bits 0-5    number of bits to take
 *   bits 6-9    zeros before the first coefficient
 *   bits 10-15  distance from `at` to the last item, the second coefficient or the end of the block; 63: no step
 *   bit  16     whether the end of the block follows
 *   bits 17-22  value of the second coefficient
 *   bits 23-31  value of the first coefficient
 * A step with one coefficient has it as its second, too. A step with only the end of the block stores a zero where a
 * zero is. */
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
    /* The table as in the DHT segment, from which the rest was made; empty if not `built`. */
    int built, skips_built;
    uint8_t counts[17], symbols[256];
    /* For each code length: the end of its codes, as 16 bits; the number of its first symbol minus its first code. */
    int32_t limits[18], offsets[17];
    /* The symbol that the next LOOKAHEAD bits begin with: symbol << 8 | length of its code; 0: a longer code, or
     * none. */
    uint16_t found[LOOKAHEAD_ENTRIES];
    /* AC: see above. DC: difference << 8 | bits to take; 0: no step. */
    uint32_t steps[LOOKAHEAD_ENTRIES];
    /* AC without values: bits to take, distance to the last symbol << 5, number of coefficients skipped << 10; 0: no
     * entry. */
    uint16_t skips[LOOKAHEAD_ENTRIES];
};

/* Builds everything except `skips` for a table of DC differences or of AC coefficients. Returns 1; or 0 if there is
 * no table or it is invalid. */
int loader_codes_build(struct loader_codes *codes, const JHUFF_TBL *table, int dc);

/* Builds `skips` for a table of AC coefficients. */
void loader_codes_build_skips(struct loader_codes *codes);

/* EXTEND of T.81, F.2.2.1: values that begin with the bit 0 are negative. */
static inline int extend(int value, int size) { return value < 1 << (size - 1) ? value - (1 << size) + 1 : value; }

#endif
