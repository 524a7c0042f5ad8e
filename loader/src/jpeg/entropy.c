/* A faster decoder of Huffman-coded coefficients, which replaces libjpeg's own.
 *
 * Decoding a photo spends most of its time in the entropy-coded segment: for each coefficient that is not zero, a
 * Huffman code of the symbol RRRRSSSS (a run of RRRR zeros, then a value of SSSS bits) and those bits (ITU-T T.81,
 * F.2.2). libjpeg decodes them one by one. Here, one table lookup of the next bits finds up to two coefficients with
 * their values and the end of the block; or, where no values are needed, as many symbols as there are. Everything
 * else is libjpeg's: this code is called once per MCU (the blocks of all components for one square of the image) and
 * does what jdhuff.c does there. It handles files with a single scan and without restart markers, which are nearly
 * all files that are not progressive.
 *
 * A damaged file must not cause an access outside of the buffers:
 * - reads: the segment is copied and followed by more zeros than one MCU can consume; after each MCU it is checked
 *   whether the end of the segment was passed;
 * - writes: `at`, the number of the next coefficient, is below 64 before each step. An entry of several symbols is
 *   used only if the last of them is inside the block, and a single symbol leads at most 15 further, for which
 *   natural_order has room. */
#include "entropy.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define JPEG_INTERNALS
#include <jpegint.h>
#include <jpegcomp.h>
#include <jerror.h>

#include "codes.h"

/* Number of zeros after the segment. A symbol has at most 16 bits of code and 15 of value, a block at most 64
 * symbols. */
#define PADDING (D_MAX_BLOCKS_IN_MCU * DCTSIZE2 * 4 + 32)

struct bits {
    /* The next `count` bits, from the highest on, followed by more bits. */
    uint64_t ahead;
    unsigned count;
    const uint8_t *next;
};

struct block {
    struct loader_codes *dc, *ac;
    int component;
    int only_dc;
};

struct loader_entropy {
    struct bits bits;
    uint8_t *segment;
    size_t room;
    const uint8_t *end;
    /* Of the next MCU. */
    JDIMENSION column;
    int can_skip;
    /* For each component, the DC coefficient of its last block. */
    int dc[MAX_COMPS_IN_SCAN];
    struct block blocks[D_MAX_BLOCKS_IN_MCU];
    struct loader_codes dc_codes[NUM_HUFF_TBLS], ac_codes[NUM_HUFF_TBLS];
};

/* From zigzag order to row order, with room for a run beyond the end. */
static const uint8_t natural_order[DCTSIZE2 + 16] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,
    6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31,
    39, 46, 53, 60, 61, 54, 47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
};

/* ---- Bits ---- */

static inline uint64_t load(const uint8_t *from) {
    return (uint64_t)from[0] << 56 | (uint64_t)from[1] << 48 | (uint64_t)from[2] << 40 | (uint64_t)from[3] << 32 |
           (uint64_t)from[4] << 24 | (uint64_t)from[5] << 16 | (uint64_t)from[6] << 8 | from[7];
}

/* Without a branch: adds the bytes that fit. A byte that fits only in part is added again by the next refill. */
static inline void refill(struct bits *bits) {
    bits->ahead |= load(bits->next) >> bits->count;
    bits->next += (63 - bits->count) >> 3;
    bits->count |= FILLED;
}

static inline void take(struct bits *bits, unsigned count) {
    bits->ahead <<= count;
    bits->count -= count;
}

static inline unsigned peek(const struct bits *bits) { return (unsigned)(bits->ahead >> (64 - LOOKAHEAD)); }

/* As `found`, for codes longer than the lookahead: DECODE of T.81, F.2.2.3. */
static unsigned find_long(j_decompress_ptr decoder, const struct loader_codes *codes, int32_t ahead) {
    int length = LOOKAHEAD + 1;
    while (ahead >= codes->limits[length]) length++;
    if (length > 16) {
        WARNMS(decoder, JWRN_HUFF_BAD_CODE);
        return 16;
    }
    return (unsigned)codes->symbols[((ahead >> (16 - length)) + codes->offsets[length]) & 0xFF] << 8 | (unsigned)length;
}

static inline unsigned take_symbol(j_decompress_ptr decoder, const struct loader_codes *codes, struct bits *bits) {
    unsigned found = codes->found[peek(bits)];
    if (found == 0) found = find_long(decoder, codes, (int32_t)(bits->ahead >> 48));
    take(bits, found & 31);
    return found >> 8;
}

/* size: 1 to 15. */
static inline int take_value(struct bits *bits, unsigned size) {
    int value = extend((int)(bits->ahead >> (64 - size)), (int)size);
    take(bits, size);
    return value;
}

/* ---- Blocks ---- */

/* The DC coefficient minus that of the component's last block. */
static inline int read_difference(j_decompress_ptr decoder, const struct loader_codes *codes, struct bits *bits) {
    refill(bits);
    uint32_t step = codes->steps[peek(bits)];
    if (step != 0) {
        take(bits, TAKEN(step));
        return (int32_t)step >> 8;
    }
    unsigned size = take_symbol(decoder, codes, bits) & 15;
    int difference = size > 0 ? take_value(bits, size) : 0;
    refill(bits);
    return difference;
}

/* The AC coefficients. As in skip_coefficients, at most LOOKAHEAD bits have been taken since the last refill. */
static inline void read_coefficients(j_decompress_ptr decoder, const struct loader_codes *codes, struct bits *bits,
                                     JCOEF *block) {
    unsigned at = 1;
    for (;;) {
        for (int i = 0; i < 3; i++) {
            uint32_t step = codes->steps[peek(bits)];
            unsigned last = at + LAST(step);
            if (last >= DCTSIZE2) goto single;
            take(bits, TAKEN(step));
            /* In this order, because a step with one coefficient has it in both places and its value is the first. */
            block[natural_order[last - ENDS(step)]] = (JCOEF)SECOND(step);
            block[natural_order[at + RUN(step)]] = (JCOEF)FIRST(step);
            if (ENDS(step)) return;
            at = last + 1;
            if (at >= DCTSIZE2) return;
        }
        refill(bits);
        continue;

    single:
        refill(bits);
        unsigned symbol = take_symbol(decoder, codes, bits), size = symbol & 15;
        if (size > 0) {
            at += symbol >> 4;
            block[natural_order[at++]] = (JCOEF)take_value(bits, size);
        } else if (symbol == ZEROS_16) {
            at += 16;
        } else {
            return;
        }
        if (at >= DCTSIZE2) return;
        refill(bits);
    }
}

static inline void skip_coefficients(j_decompress_ptr decoder, const struct loader_codes *codes, struct bits *bits) {
    unsigned at = 1;
    for (;;) {
        for (int i = 0; i < 2; i++) {
            unsigned skip = codes->skips[peek(bits)];
            if (skip == 0 || at + (skip >> 5 & 31) >= DCTSIZE2) goto single;
            take(bits, skip & 31);
            at += skip >> 10;
            if (at >= DCTSIZE2) return;
        }
        refill(bits);
        continue;

    single:
        refill(bits);
        unsigned symbol = take_symbol(decoder, codes, bits), size = symbol & 15;
        if (size == 0 && symbol != ZEROS_16) return;
        take(bits, size);
        at += (symbol >> 4) + 1;
        if (at >= DCTSIZE2) return;
        refill(bits);
    }
}

/* Replaces the function of jdhuff.c. `blocks` are zero; NULL means that the coefficients are to be skipped. */
static boolean decode_mcu(j_decompress_ptr decoder, JBLOCKROW *blocks) {
    struct loader_entropy *entropy = decoder->client_data;
    const struct jpeg_decomp_master *master = decoder->master;
    struct bits bits = entropy->bits;
    /* Columns next to the requested region, which libjpeg decodes and ignores. */
    if (entropy->column < master->first_iMCU_col || entropy->column > master->last_iMCU_col) blocks = NULL;
    if (++entropy->column == decoder->MCUs_per_row) entropy->column = 0;
    if (blocks == NULL && !entropy->can_skip) {
        for (int i = 0; i < decoder->blocks_in_MCU; i++) loader_codes_build_skips(entropy->blocks[i].ac);
        entropy->can_skip = 1;
    }
    for (int i = 0; i < decoder->blocks_in_MCU; i++) {
        const struct block *block = &entropy->blocks[i];
        /* Unsigned, because in a damaged file the sum may overflow. */
        unsigned difference = (unsigned)read_difference(decoder, block->dc, &bits);
        int dc = (int)((unsigned)entropy->dc[block->component] + difference);
        entropy->dc[block->component] = dc;
        if (blocks != NULL) (*blocks[i])[0] = (JCOEF)dc;
        if (blocks == NULL || block->only_dc) {
            skip_coefficients(decoder, block->ac, &bits);
        } else {
            read_coefficients(decoder, block->ac, &bits, *blocks[i]);
        }
    }
    if (8 * (bits.next - entropy->end) > (ptrdiff_t)bits.count) {
        WARNMS(decoder, JWRN_HIT_MARKER);
        /* If that is not an error for the caller: zeros to the end, as libjpeg does. */
        bits = (struct bits){0, 0, entropy->end};
    }
    entropy->bits = bits;
    return TRUE;
}

/* ---- Images ---- */

/* Copies the segment up to the next marker, without the zero after each byte 0xFF. Returns the end of the copy. */
static uint8_t *unstuff(struct jpeg_source_mgr *source, uint8_t *to) {
    const uint8_t *from = source->next_input_byte, *end = from + source->bytes_in_buffer;
    while (from < end) {
        const uint8_t *mark = memchr(from, 0xFF, (size_t)(end - from));
        size_t plain = (size_t)((mark != NULL ? mark : end) - from);
        /* A fixed length is faster. The copy is never ahead of its source, so there is room. */
        if (plain <= 32 && end - from >= 32) {
            memcpy(to, from, 32);
        } else {
            memcpy(to, from, plain);
        }
        to += plain;
        from += plain;
        const uint8_t *after = from;
        while (after < end && *after == 0xFF) after++;
        if (after == end || *after != 0) break;
        *to++ = 0xFF;
        from = after + 1;
    }
    source->bytes_in_buffer = (size_t)(end - from);
    source->next_input_byte = from;
    return to;
}

/* When the scan started, libjpeg checked its parameters and tables, and rejected what it cannot decode. */
int loader_entropy_start(struct loader_entropy *entropy, j_decompress_ptr decoder) {
    if (entropy == NULL || decoder->progressive_mode || decoder->arith_code || jpeg_has_multiple_scans(decoder) ||
        decoder->restart_interval != 0)
        return 0;
    entropy->can_skip = 0;
    for (int i = 0; i < decoder->blocks_in_MCU; i++) {
        struct block *block = &entropy->blocks[i];
        block->component = decoder->MCU_membership[i];
        const jpeg_component_info *component = decoder->cur_comp_info[block->component];
        block->dc = &entropy->dc_codes[component->dc_tbl_no];
        block->ac = &entropy->ac_codes[component->ac_tbl_no];
        /* At 1/8 of the size, only the DC coefficient is needed. */
        block->only_dc = component->_DCT_scaled_size == 1;
        if (!loader_codes_build(block->dc, decoder->dc_huff_tbl_ptrs[component->dc_tbl_no], 1) ||
            !loader_codes_build(block->ac, decoder->ac_huff_tbl_ptrs[component->ac_tbl_no], 0))
            return 0;
        if (block->only_dc) loader_codes_build_skips(block->ac);
    }
    size_t room = decoder->src->bytes_in_buffer + PADDING;
    if (room > entropy->room) {
        free(entropy->segment);
        entropy->segment = malloc(room);
        entropy->room = entropy->segment != NULL ? room : 0;
        if (entropy->segment == NULL) return 0;
    }
    uint8_t *end = unstuff(decoder->src, entropy->segment);
    memset(end, 0, PADDING);
    entropy->end = end;
    entropy->bits = (struct bits){0, 0, entropy->segment};
    entropy->column = 0;
    memset(entropy->dc, 0, sizeof entropy->dc);
    decoder->client_data = entropy;
    decoder->entropy->decode_mcu = decode_mcu;
    return 1;
}

struct loader_entropy *loader_entropy_new(void) { return calloc(1, sizeof(struct loader_entropy)); }

void loader_entropy_free(struct loader_entropy *entropy) {
    if (entropy == NULL) return;
    free(entropy->segment);
    free(entropy);
}
