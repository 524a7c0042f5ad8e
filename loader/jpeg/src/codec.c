/* A wrapper of libjpeg-turbo that reports errors as return values, and the calls from libjpeg to entropy.rs.
 *
 * libjpeg reports a damaged file by longjmp, which must not cross Rust code. So the libjpeg calls between two
 * decisions of the caller are one C function each. Every function returns DONE or why it failed; after a failure the
 * codec can be used again. Rust is called from here in two places, `start_entropy` and `decode_mcu`; it returns before
 * anything is reported. The other side of all this is ffi.rs. */
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>
#define JPEG_INTERNALS
#include <jpegint.h>
#include <jpegcomp.h>

/* What a function returns. */
enum { DONE, DAMAGED, TRUNCATED, TOO_LARGE, TOO_MANY_SCANS, TOO_MUCH_WORK, OUTSIDE, NO_MEMORY };

/* What decoding an MCU returns. */
enum { DECODED, BAD_CODE, ENDED };

/* How much one image may cost: see `Limits` in lib.rs. */
struct limits {
    uint64_t memory, work;
    uint32_t scans;
};

/* A scan, for entropy.rs. The tables are the first members of JHUFF_TBL, in the same order. */
struct scan {
    const uint8_t *data;
    size_t length;
    uint32_t columns, first_column, end_column;
    uint32_t count;
    struct {
        uint32_t blocks, dc_table, ac_table, only_dc;
    } components[MAX_COMPS_IN_SCAN];
    const JHUFF_TBL *dc_tables[NUM_HUFF_TBLS], *ac_tables[NUM_HUFF_TBLS];
};
_Static_assert(offsetof(JHUFF_TBL, bits) == 0 && offsetof(JHUFF_TBL, huffval) == 17, "ffi.rs has another JHUFF_TBL");
_Static_assert(MAX_COMPS_IN_SCAN == 4 && NUM_HUFF_TBLS == 4, "ffi.rs has other lengths");
_Static_assert(sizeof(JBLOCK) == 64 * sizeof(int16_t), "ffi.rs has another JBLOCK");

/* A decoder of Huffman-coded coefficients. */
struct entropy {
    /* NULL: libjpeg decodes the coefficients. */
    void *state;
    /* Takes over a scan, and sets the length of its segment in bytes. Returns 0 if libjpeg has to decode it. */
    int (*start)(void *state, const struct scan *scan, size_t *length);
    /* Decodes an MCU into `count` blocks of zeros; if `blocks` is NULL, it is passed over. */
    int (*decode)(void *state, JBLOCKROW *blocks, size_t count);
};

struct simzss_jpeg {
    /* First, so that libjpeg's pointer to it is a pointer to the codec. */
    struct jpeg_error_mgr errors;
    jmp_buf escape;
    int status;
    char message[JMSG_LENGTH_MAX];
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct decoder;
    struct entropy entropy;
    struct limits limits;
    /* The scan whose work was counted last, and the work so far. */
    int counted_scan;
    uint64_t work;
};

_Noreturn static void fail(struct simzss_jpeg *codec, int status) {
    codec->status = status;
    longjmp(codec->escape, 1);
}

_Noreturn static void leave(j_common_ptr info) {
    struct simzss_jpeg *codec = (struct simzss_jpeg *)info->err;
    switch (info->err->msg_code) {
    case JWRN_JPEG_EOF:
        fail(codec, TRUNCATED);
    case JERR_OUT_OF_MEMORY:
        fail(codec, NO_MEMORY);
    default:
        info->err->format_message(info, codec->message);
        fail(codec, DAMAGED);
    }
}

/* libjpeg continues after damage, with grey where data are missing; here, damage is an error. Warnings that do not
 * affect any pixel are ignored. */
static void judge(j_common_ptr info, int level) {
    if (level >= 0) return;
    switch (info->err->msg_code) {
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
    case JWRN_BOGUS_PROGRESSION:
        return;
    default:
        leave(info);
    }
}

/* Number of samples of a component, with those that fill its last blocks. */
static uint64_t samples_of(const jpeg_component_info *component) {
    return (uint64_t)component->width_in_blocks * component->height_in_blocks * DCTSIZE2;
}

/* Counts the work of a scan before it is done: libjpeg calls this between the rows of blocks that it reads. */
static void count_work(j_common_ptr info) {
    struct simzss_jpeg *codec = (struct simzss_jpeg *)info->err;
    const struct jpeg_decompress_struct *decoder = &codec->decoder;
    if (decoder->input_scan_number == codec->counted_scan) return;
    codec->counted_scan = decoder->input_scan_number;
    for (int i = 0; i < decoder->comps_in_scan; i++) codec->work += samples_of(decoder->cur_comp_info[i]);
    if ((uint64_t)decoder->input_scan_number > codec->limits.scans) fail(codec, TOO_MANY_SCANS);
    if (codec->work > codec->limits.work) fail(codec, TOO_MUCH_WORK);
}

/* Whether decoding takes more memory than allowed. The whole image counts even if only a region of it is asked for, so
 * that the same file is accepted or refused everywhere. */
static int is_too_large(struct simzss_jpeg *codec) {
    const struct jpeg_decompress_struct *decoder = &codec->decoder;
    uint64_t pixel = decoder->num_components == 4 ? 7 : 3;
    uint64_t memory = pixel * decoder->image_width * decoder->image_height;
    if (decoder->progressive_mode || decoder->comps_in_scan < decoder->num_components) {
        for (int i = 0; i < decoder->num_components; i++) {
            memory += sizeof(JCOEF) * samples_of(&decoder->comp_info[i]);
        }
    }
    return memory > codec->limits.memory;
}

static void be_silent(j_common_ptr info) { (void)info; }

static void set_errors(struct simzss_jpeg *codec) {
    jpeg_std_error(&codec->errors);
    codec->errors.error_exit = leave;
    codec->errors.emit_message = judge;
    codec->errors.output_message = be_silent;
}

struct simzss_jpeg *simzss_jpeg_new(void) {
    struct simzss_jpeg *volatile codec = calloc(1, sizeof *codec);
    if (codec == NULL) return NULL;
    set_errors(codec);
    codec->decoder.err = &codec->errors;
    if (setjmp(codec->escape)) {
        free(codec);
        return NULL;
    }
    jpeg_create_decompress(&codec->decoder);
    codec->progress.progress_monitor = count_work;
    codec->decoder.progress = &codec->progress;
    return codec;
}

void simzss_jpeg_free(struct simzss_jpeg *codec) {
    if (codec == NULL) return;
    jpeg_destroy_decompress(&codec->decoder);
    free(codec);
}

/* What is damaged, after a function has returned DAMAGED. */
const char *simzss_jpeg_message(const struct simzss_jpeg *codec) { return codec->message; }

/* ---- Coefficients ---- */

/* Replaces the function of jdhuff.c. `blocks` are zero; NULL means that the coefficients are to be skipped. */
static boolean decode_mcu(j_decompress_ptr decoder, JBLOCKROW *blocks) {
    const struct entropy *entropy = decoder->client_data;
    int result = entropy->decode(entropy->state, blocks, (size_t)decoder->blocks_in_MCU);
    /* Neither returns, as `judge` takes them for errors. */
    if (result == BAD_CODE) WARNMS(decoder, JWRN_HUFF_BAD_CODE);
    if (result == ENDED) WARNMS(decoder, JWRN_HIT_MARKER);
    return TRUE;
}

/* Makes entropy.rs decode the coefficients, if it can: not those of files with several scans or with restart markers. */
static void start_entropy(struct simzss_jpeg *codec) {
    struct jpeg_decompress_struct *decoder = &codec->decoder;
    const struct entropy *entropy = &codec->entropy;
    if (entropy->state == NULL || decoder->progressive_mode || decoder->arith_code ||
        jpeg_has_multiple_scans(decoder) || decoder->restart_interval != 0)
        return;
    struct scan scan = {
        .data = decoder->src->next_input_byte,
        .length = decoder->src->bytes_in_buffer,
        .columns = decoder->MCUs_per_row,
        .first_column = decoder->master->first_iMCU_col,
        .end_column = decoder->master->last_iMCU_col + 1,
        .count = (uint32_t)decoder->comps_in_scan,
    };
    for (int i = 0; i < decoder->comps_in_scan; i++) {
        const jpeg_component_info *component = decoder->cur_comp_info[i];
        scan.components[i].blocks = (uint32_t)component->MCU_blocks;
        scan.components[i].dc_table = (uint32_t)component->dc_tbl_no;
        scan.components[i].ac_table = (uint32_t)component->ac_tbl_no;
        /* At 1/8 of the size, only the DC coefficient is needed. */
        scan.components[i].only_dc = component->_DCT_scaled_size == 1;
    }
    for (int i = 0; i < NUM_HUFF_TBLS; i++) {
        scan.dc_tables[i] = decoder->dc_huff_tbl_ptrs[i];
        scan.ac_tables[i] = decoder->ac_huff_tbl_ptrs[i];
    }
    size_t length = 0;
    if (!entropy->start(entropy->state, &scan, &length)) return;
    decoder->src->next_input_byte += length;
    decoder->src->bytes_in_buffer -= length;
    decoder->client_data = &codec->entropy;
    decoder->entropy->decode_mcu = decode_mcu;
}

/* ---- Files ---- */

/* Reads the header of a file, whose memory must stay valid until it is decoded. size: width, height. */
int simzss_jpeg_header(struct simzss_jpeg *codec, const uint8_t *file, size_t length, const struct limits *limits,
                       uint32_t size[2]) {
    struct jpeg_decompress_struct *decoder = &codec->decoder;
    if (setjmp(codec->escape)) {
        jpeg_abort_decompress(decoder);
        return codec->status;
    }
    jpeg_abort_decompress(decoder);
    codec->limits = *limits;
    codec->counted_scan = 0;
    codec->work = 0;
    jpeg_mem_src(decoder, (unsigned char *)file, length);
    jpeg_read_header(decoder, TRUE);
    size[0] = decoder->image_width;
    size[1] = decoder->image_height;
    return DONE;
}

/* Starts decoding at eighths / 8 of the size. area: left, top, width, height of the region of the scaled image to
 * decode; on return, the region that will be written, which contains it. channels: 3, or 4 for CMYK. */
int simzss_jpeg_start(struct simzss_jpeg *codec, const struct entropy *entropy, uint32_t eighths, int fast,
                      uint32_t area[4], uint32_t size[2], uint32_t *channels) {
    struct jpeg_decompress_struct *decoder = &codec->decoder;
    if (setjmp(codec->escape)) {
        jpeg_abort_decompress(decoder);
        return codec->status;
    }
    codec->entropy = *entropy;
    if (is_too_large(codec)) fail(codec, TOO_LARGE);
    int four = decoder->jpeg_color_space == JCS_CMYK || decoder->jpeg_color_space == JCS_YCCK;
    decoder->out_color_space = four ? JCS_CMYK : JCS_RGB;
    decoder->scale_num = eighths;
    decoder->scale_denom = 8;
    decoder->dct_method = fast ? JDCT_IFAST : JDCT_ISLOW;
    decoder->do_fancy_upsampling = fast ? FALSE : TRUE;
    /* Left from the last image, and freed with it. libjpeg sets it only where colour conversion is not merged with
     * upsampling, but jpeg_skip_scanlines writes to it wherever it is not NULL. */
    decoder->cconvert = NULL;
    jpeg_start_decompress(decoder);
    *channels = (uint32_t)decoder->output_components;
    size[0] = decoder->output_width;
    size[1] = decoder->output_height;

    /* Without sums, which could wrap around. */
    if (area[2] == 0 || area[3] == 0 || area[0] > size[0] || area[2] > size[0] - area[0] || area[1] > size[1] ||
        area[3] > size[1] - area[1])
        fail(codec, OUTSIDE);
    /* Chroma upsampling also reads neighbouring pixels; with this margin, the edges of the region are right, too. */
    const uint32_t margin = 4;
    uint32_t right = area[0] + area[2];
    JDIMENSION left = area[0] > margin ? area[0] - margin : 0;
    right = right + margin < size[0] ? right + margin : size[0];
    JDIMENSION columns = right - left;
    if (columns < size[0]) jpeg_crop_scanline(decoder, &left, &columns);
    area[0] = left;
    area[2] = columns;
    /* After the columns are known. */
    start_entropy(codec);
    return DONE;
}

/* Decodes the region that simzss_jpeg_start returned, as rows of area[2] * channels bytes. */
int simzss_jpeg_read(struct simzss_jpeg *codec, const struct entropy *entropy, const uint32_t area[4], uint8_t *pixels) {
    struct jpeg_decompress_struct *decoder = &codec->decoder;
    if (setjmp(codec->escape)) {
        jpeg_abort_decompress(decoder);
        return codec->status;
    }
    codec->entropy = *entropy;
    size_t stride = (size_t)area[2] * (size_t)decoder->output_components;
    if (area[1] > 0) jpeg_skip_scanlines(decoder, area[1]);
    uint32_t row = 0;
    while (row < area[3]) {
        JSAMPROW rows[8];
        uint32_t count = area[3] - row < 8 ? area[3] - row : 8;
        for (uint32_t i = 0; i < count; i++) rows[i] = pixels + (row + i) * stride;
        row += jpeg_read_scanlines(decoder, rows, count);
    }
    if (decoder->output_scanline == decoder->output_height) {
        jpeg_finish_decompress(decoder);
    } else {
        jpeg_abort_decompress(decoder);
    }
    return DONE;
}

/* Encodes 8-bit pixels of 1 (greyscale) or 3 (RGB) channels, with 4:2:0 chroma subsampling. Sides of 1 to 65,500 pixels
 * leave lack of memory as the only reason to fail. Free *file with simzss_jpeg_free_file. */
int simzss_jpeg_encode(const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels, int quality,
                       uint8_t **file, size_t *length) {
    struct simzss_jpeg codec;
    struct jpeg_compress_struct encoder;
    unsigned long size = 0;
    memset(&codec, 0, sizeof codec);
    memset(&encoder, 0, sizeof encoder);
    set_errors(&codec);
    encoder.err = &codec.errors;
    if (setjmp(codec.escape)) {
        jpeg_destroy_compress(&encoder);
        /* It is unknown here which buffer is the current one, so that one is leaked. */
        *file = NULL;
        return NO_MEMORY;
    }
    *file = NULL;
    *length = 0;
    jpeg_create_compress(&encoder);
    /* Baseline files, as libjpeg-turbo writes; this library's default searches for smaller ones and takes 20 times
     * as long. */
    jpeg_c_set_int_param(&encoder, JINT_COMPRESS_PROFILE, JCP_FASTEST);
    jpeg_mem_dest(&encoder, file, &size);
    encoder.image_width = width;
    encoder.image_height = height;
    encoder.input_components = (int)channels;
    encoder.in_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&encoder);
    jpeg_set_quality(&encoder, quality, TRUE);
    if (channels == 3) {
        encoder.comp_info[0].h_samp_factor = 2;
        encoder.comp_info[0].v_samp_factor = 2;
    }
    jpeg_start_compress(&encoder, TRUE);
    while (encoder.next_scanline < height) {
        JSAMPROW row = (JSAMPROW)(pixels + (size_t)encoder.next_scanline * width * channels);
        jpeg_write_scanlines(&encoder, &row, 1);
    }
    jpeg_finish_compress(&encoder);
    jpeg_destroy_compress(&encoder);
    *length = size;
    return DONE;
}

void simzss_jpeg_free_file(uint8_t *file) { free(file); }

/* Whether SIMD code is built in and this processor supports it. */
int jsimd_can_idct_islow(void);

int simzss_jpeg_vectorised(void) { return jsimd_can_idct_islow(); }
