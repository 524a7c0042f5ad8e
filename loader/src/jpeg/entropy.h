/* A faster decoder of Huffman-coded coefficients, which replaces libjpeg's own: see entropy.c. */
#ifndef LOADER_ENTROPY_H
#define LOADER_ENTROPY_H

#include <stdio.h>

#include <jpeglib.h>

struct loader_entropy;

/* Returns NULL if out of memory. Free with loader_entropy_free, which also accepts NULL. */
struct loader_entropy *loader_entropy_new(void);
void loader_entropy_free(struct loader_entropy *entropy);

/* Call between jpeg_start_decompress and the first row: makes `entropy` decode the coefficients of this image.
 * Returns 1; or 0 if libjpeg decodes them: `entropy` is NULL, the file has several scans or restart markers, or
 * memory is insufficient. Uses the decoder's client_data. */
int loader_entropy_start(struct loader_entropy *entropy, j_decompress_ptr decoder);

#endif
