/* Tables for decoding the Huffman codes of JPEG: see codes.h. */
#include "codes.h"

#include <stdlib.h>
#include <string.h>

/* What fits into a step. */
#define MAX_FIRST_SIZE 8
#define MAX_SECOND 31

/* Builds the codes of T.81, annex C; `steps` gets those of one symbol. Returns 0 if the table is not a valid set of
 * codes. */
static int build_symbols(struct loader_codes *codes, int dc) {
    memset(codes->found, 0, sizeof codes->found);
    for (unsigned i = 0; i < LOOKAHEAD_ENTRIES; i++) codes->steps[i] = dc ? 0 : NO_STEP;
    int code = 0, number = 0;
    for (int length = 1; length <= 16; length++, code <<= 1) {
        int count = codes->counts[length];
        if (code + count > 1 << length || number + count > 256) return 0;
        codes->offsets[length] = number - code;
        codes->limits[length] = (code + count) << (16 - length);
        for (; count > 0; count--, code++, number++) {
            if (length > LOOKAHEAD) continue;
            int symbol = codes->symbols[number], size = symbol & 15, run = symbol >> 4, spare = LOOKAHEAD - length;
            for (int i = 0; i < 1 << spare; i++) codes->found[(code << spare) + i] = (uint16_t)(symbol << 8 | length);
            if (size > spare || size > MAX_FIRST_SIZE || symbol == ZEROS_16) continue;
            uint32_t *to = codes->steps + (code << spare);
            for (int i = 0; i < 1 << spare; i++) {
                int value = size == 0 ? 0 : extend(i >> (spare - size), size);
                uint32_t step = (uint32_t)(length + size);
                if (dc) {
                    step |= (uint32_t)value << 8;
                } else if (size == 0) {
                    step |= END | ONE_FURTHER;
                } else {
                    step |= (uint32_t)run << 6 | (uint32_t)run << 10 | (uint32_t)value << 23;
                }
                to[i] = step;
            }
        }
    }
    codes->limits[17] = 1 << 16;
    return 1;
}

/* Extends the steps of one coefficient by what follows them in the lookahead. */
static void build_steps(struct loader_codes *codes) {
    uint32_t single[LOOKAHEAD_ENTRIES];
    memcpy(single, codes->steps, sizeof single);
    for (uint32_t ahead = 0; ahead < LOOKAHEAD_ENTRIES; ahead++) {
        uint32_t step = single[ahead];
        for (int coefficients = 1; coefficients <= 2; coefficients++) {
            if (LAST(step) == 63 || ENDS(step)) break;
            uint32_t next = single[ahead << TAKEN(step) & (LOOKAHEAD_ENTRIES - 1)];
            if (LAST(next) == 63 || TAKEN(step) + TAKEN(next) > LOOKAHEAD) break;
            if (ENDS(next)) {
                step += TAKEN(next) + ONE_FURTHER + END;
            } else if (coefficients == 1 && abs(FIRST(next)) <= MAX_SECOND) {
                step += TAKEN(next) + (RUN(next) + 1) * ONE_FURTHER + ((uint32_t)FIRST(next) & 63) * (END << 1);
            } else {
                break;
            }
        }
        codes->steps[ahead] = step;
    }
}

/* In these, the value of the last symbol may end beyond the lookahead. */
void loader_codes_build_skips(struct loader_codes *codes) {
    if (codes->skips_built) return;
    codes->skips_built = 1;
    for (unsigned ahead = 0; ahead < LOOKAHEAD_ENTRIES; ahead++) {
        unsigned taken = 0, at = 0, last = 0;
        while (taken < LOOKAHEAD) {
            unsigned found = codes->found[ahead << taken & (LOOKAHEAD_ENTRIES - 1)];
            unsigned length = found & 0xFF, symbol = found >> 8, size = symbol & 15, run = symbol >> 4;
            if (length == 0 || taken + length > LOOKAHEAD || taken + length + size > MAX_SKIPPED) break;
            if (size == 0 && symbol != ZEROS_16) {
                taken += length;
                last = at;
                at = 63;
                break;
            }
            if (at + run > 30) break;
            taken += length + size;
            last = at + run;
            at = last + 1;
        }
        codes->skips[ahead] = (uint16_t)(at << 10 | last << 5 | taken);
    }
}

/* Most files have the tables of T.81, annex K, so that nothing has to be built again. Returns 0 if the table cannot
 * be used. */
int loader_codes_build(struct loader_codes *codes, const JHUFF_TBL *table, int dc) {
    if (table == NULL) return 0;
    if (codes->built && memcmp(codes->counts, table->bits, sizeof codes->counts) == 0 &&
        memcmp(codes->symbols, table->huffval, sizeof codes->symbols) == 0)
        return 1;
    memcpy(codes->counts, table->bits, sizeof codes->counts);
    memcpy(codes->symbols, table->huffval, sizeof codes->symbols);
    codes->skips_built = 0;
    codes->built = build_symbols(codes, dc);
    if (codes->built && !dc) build_steps(codes);
    return codes->built;
}
