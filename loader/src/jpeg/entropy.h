/* A quicker decoder of Huffman-coded coefficients, in the place of libjpeg's own: see entropy.c. */
#ifndef LOADER_ENTROPY_H
#define LOADER_ENTROPY_H

#include <stdio.h>

#include <jpeglib.h>

struct loader_entropy;

/* NULL without memory. To be freed with loader_entropy_free, which takes NULL, too. */
struct loader_entropy *loader_entropy_new(void);
void loader_entropy_free(struct loader_entropy *entropy);

/* To be called between jpeg_start_decompress and the first row: makes `entropy` decode this image's coefficients.
 * Returns 1; or 0 where that stays with libjpeg: NULL, files of several scans, restart markers, no memory. Uses the
 * decoder's client_data. */
int loader_entropy_start(struct loader_entropy *entropy, j_decompress_ptr decoder);

#endif
