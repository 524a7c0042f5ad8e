/* A wrapper of libjpeg-turbo that reports errors as return values.
 *
 * libjpeg reports a damaged file by longjmp, which must not cross Rust code. So the libjpeg calls between two
 * decisions of the caller are one C function each. Every function returns 0, or -1 with the reason in `message`;
 * after -1 the codec can be used again. */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "entropy.h"

/* How much one image may cost; the numbers are those of budget.rs. */
struct loader_jpeg_budget {
    /* Bytes: coefficients that are kept until all scans are read, and pixels. */
    uint64_t memory;
    /* Samples that the scans visit. */
    uint64_t work;
    /* Each scan costs a pass over the image, so a small malicious file could otherwise take hours. */
    uint64_t scans;
};

struct loader_jpeg {
    /* First, so that libjpeg's pointer to it is a pointer to the codec. */
    struct jpeg_error_mgr errors;
    jmp_buf escape;
    char message[JMSG_LENGTH_MAX];
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct decoder;
    /* NULL: libjpeg decodes the coefficients. */
    struct loader_entropy *entropy;
    int quick;
    struct loader_jpeg_budget budget;
    /* The scan whose work was counted last, and the work so far. */
    int counted_scan;
    uint64_t work;
};

static void leave(j_common_ptr info) {
    struct loader_jpeg *codec = (struct loader_jpeg *)info->err;
    info->err->format_message(info, codec->message);
    longjmp(codec->escape, 1);
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
    struct loader_jpeg *codec = (struct loader_jpeg *)info->err;
    const struct jpeg_decompress_struct *decoder = &codec->decoder;
    if (decoder->input_scan_number == codec->counted_scan) return;
    codec->counted_scan = decoder->input_scan_number;
    for (int i = 0; i < decoder->comps_in_scan; i++) codec->work += samples_of(decoder->cur_comp_info[i]);
    if ((uint64_t)decoder->input_scan_number > codec->budget.scans) {
        snprintf(codec->message, sizeof codec->message, "too much work: it has more than %llu scans",
                 (unsigned long long)codec->budget.scans);
        longjmp(codec->escape, 1);
    }
    if (codec->work > codec->budget.work) {
        snprintf(codec->message, sizeof codec->message, "too much work: its %d scans visit more than %llu million samples",
                 decoder->input_scan_number, (unsigned long long)(codec->budget.work / 1000000));
        longjmp(codec->escape, 1);
    }
}

/* Whether decoding takes more memory than allowed. The whole image counts even if only a region of it is asked for, so
 * that the same file is accepted or refused everywhere. */
static int is_too_large(struct loader_jpeg *codec) {
    const struct jpeg_decompress_struct *decoder = &codec->decoder;
    uint64_t pixel = decoder->num_components == 4 ? 7 : 3;
    uint64_t memory = pixel * decoder->image_width * decoder->image_height;
    if (decoder->progressive_mode || decoder->comps_in_scan < decoder->num_components) {
        for (int i = 0; i < decoder->num_components; i++) {
            memory += sizeof(JCOEF) * samples_of(&decoder->comp_info[i]);
        }
    }
    return memory > codec->budget.memory;
}

static void be_silent(j_common_ptr info) { (void)info; }

static void set_errors(struct loader_jpeg *codec) {
    jpeg_std_error(&codec->errors);
    codec->errors.error_exit = leave;
    codec->errors.emit_message = judge;
    codec->errors.output_message = be_silent;
}

/* quick: whether entropy.c decodes the coefficients, where it can, instead of libjpeg. */
struct loader_jpeg *loader_jpeg_new(int quick) {
    struct loader_jpeg *volatile codec = calloc(1, sizeof *codec);
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
    if (quick) codec->entropy = loader_entropy_new();
    return codec;
}

void loader_jpeg_free(struct loader_jpeg *codec) {
    if (codec == NULL) return;
    jpeg_destroy_decompress(&codec->decoder);
    loader_entropy_free(codec->entropy);
    free(codec);
}

/* Whether entropy.c decoded the coefficients of the last image. */
int loader_jpeg_quick(const struct loader_jpeg *codec) { return codec->quick; }

const char *loader_jpeg_message(const struct loader_jpeg *codec) { return codec->message; }

/* Reads the header of a file, whose memory must stay valid until it is decoded. size: width, height. */
int loader_jpeg_header(struct loader_jpeg *codec, const uint8_t *file, size_t length,
                       const struct loader_jpeg_budget *budget, uint32_t size[2]) {
    struct jpeg_decompress_struct *decoder = &codec->decoder;
    if (setjmp(codec->escape)) {
        jpeg_abort_decompress(decoder);
        return -1;
    }
    jpeg_abort_decompress(decoder);
    codec->budget = *budget;
    codec->counted_scan = 0;
    codec->work = 0;
    jpeg_mem_src(decoder, (unsigned char *)file, length);
    jpeg_read_header(decoder, TRUE);
    size[0] = decoder->image_width;
    size[1] = decoder->image_height;
    return 0;
}

/* Starts decoding at eighths / 8 of the size. area: left, top, width, height of the region of the scaled image to
 * decode; on return, the region that will be written, which contains it. channels: 3, or 4 for CMYK. */
int loader_jpeg_start(struct loader_jpeg *codec, uint32_t eighths, int fast, uint32_t area[4], uint32_t size[2],
                      uint32_t *channels) {
    struct jpeg_decompress_struct *decoder = &codec->decoder;
    if (setjmp(codec->escape)) {
        jpeg_abort_decompress(decoder);
        return -1;
    }
    if (is_too_large(codec)) {
        snprintf(codec->message, sizeof codec->message, "too large: decoding it takes more than %llu MB",
                 (unsigned long long)(codec->budget.memory >> 20));
        jpeg_abort_decompress(decoder);
        return -1;
    }
    int four = decoder->jpeg_color_space == JCS_CMYK || decoder->jpeg_color_space == JCS_YCCK;
    decoder->out_color_space = four ? JCS_CMYK : JCS_RGB;
    decoder->scale_num = eighths;
    decoder->scale_denom = 8;
    decoder->dct_method = fast ? JDCT_IFAST : JDCT_ISLOW;
    decoder->do_fancy_upsampling = fast ? FALSE : TRUE;
    codec->quick = 0;
    /* Left from the last image, and freed with it. libjpeg sets it only where colour conversion is not merged with
     * upsampling, but jpeg_skip_scanlines writes to it wherever it is not NULL. */
    decoder->cconvert = NULL;
    jpeg_start_decompress(decoder);
    codec->quick = loader_entropy_start(codec->entropy, decoder);
    *channels = (uint32_t)decoder->output_components;
    size[0] = decoder->output_width;
    size[1] = decoder->output_height;

    /* Without sums, which could wrap around. */
    if (area[2] == 0 || area[3] == 0 || area[0] > size[0] || area[2] > size[0] - area[0] || area[1] > size[1] ||
        area[3] > size[1] - area[1]) {
        snprintf(codec->message, sizeof codec->message, "the requested region is outside the image");
        jpeg_abort_decompress(decoder);
        return -1;
    }
    /* Chroma upsampling also reads neighbouring pixels; with this margin, the edges of the region are right, too. */
    const uint32_t margin = 4;
    uint32_t right = area[0] + area[2];
    JDIMENSION left = area[0] > margin ? area[0] - margin : 0;
    right = right + margin < size[0] ? right + margin : size[0];
    JDIMENSION columns = right - left;
    if (columns < size[0]) jpeg_crop_scanline(decoder, &left, &columns);
    area[0] = left;
    area[2] = columns;
    return 0;
}

/* Decodes the region that loader_jpeg_start returned, as rows of area[2] * channels bytes. */
int loader_jpeg_read(struct loader_jpeg *codec, const uint32_t area[4], uint8_t *pixels) {
    struct jpeg_decompress_struct *decoder = &codec->decoder;
    if (setjmp(codec->escape)) {
        jpeg_abort_decompress(decoder);
        return -1;
    }
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
    return 0;
}

/* Encodes 8-bit pixels of 1 (greyscale) or 3 (RGB) channels, with 4:2:0 chroma subsampling. Free *file with
 * loader_jpeg_free_file. */
int loader_jpeg_encode(const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels, int quality,
                       uint8_t **file, size_t *length, char message[JMSG_LENGTH_MAX]) {
    struct loader_jpeg codec;
    struct jpeg_compress_struct encoder;
    unsigned long size = 0;
    memset(&codec, 0, sizeof codec);
    memset(&encoder, 0, sizeof encoder);
    set_errors(&codec);
    encoder.err = &codec.errors;
    if (setjmp(codec.escape)) {
        memcpy(message, codec.message, JMSG_LENGTH_MAX);
        jpeg_destroy_compress(&encoder);
        /* Out of memory. It is unknown here which buffer is the current one, so that one is leaked. */
        *file = NULL;
        return -1;
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
    return 0;
}

void loader_jpeg_free_file(uint8_t *file) { free(file); }

/* Whether SIMD code is built in and this processor supports it. */
int jsimd_can_idct_islow(void);

int loader_jpeg_vectorised(void) { return jsimd_can_idct_islow(); }
