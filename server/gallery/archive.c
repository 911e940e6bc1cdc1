/* A zip of pictures, written while it is sent: they are packed already, so they are stored as they are. ZIP64 records
 * are written always: every program of this century reads them, and no size has to be known before. */
#include "gallery/gallery_internal.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define LOCAL_HEADER 0x04034B50U
#define CENTRAL_HEADER 0x02014B50U
#define END64 0x06064B50U
#define END64_LOCATOR 0x07064B50U
#define END_RECORD 0x06054B50U
#define VERSION64 45
#define UTF8_NAMES 0x0800U
#define DOS_DATE ((2020 - 1980) << 9 | 1 << 5 | 1) /* the same for all: the true times stand in the pictures */

struct bytes {
    uint8_t data[256];
    size_t n;
};

static void put(struct bytes *bytes, uint64_t value, size_t n) {
    for (size_t i = 0; i < n; i++) {
        bytes->data[bytes->n++] = (uint8_t)(value >> (8 * i));
    }
}

struct entry {
    char name[64];
    uint32_t crc;
    uint64_t size, offset;
};

/* What local and central headers have in common. */
static void put_common(struct bytes *bytes, const struct entry *entry, size_t extra) {
    put(bytes, VERSION64, 2);
    put(bytes, UTF8_NAMES, 2);
    put(bytes, 0, 2); /* stored */
    put(bytes, 0, 2); /* midnight */
    put(bytes, DOS_DATE, 2);
    put(bytes, entry->crc, 4);
    put(bytes, UINT32_MAX, 4); /* both sizes are in the extra field */
    put(bytes, UINT32_MAX, 4);
    put(bytes, strlen(entry->name), 2);
    put(bytes, extra, 2);
}

static bool write_entry(struct response *response, const struct entry *entry, const void *data) {
    struct bytes bytes = { .n = 0 };
    put(&bytes, LOCAL_HEADER, 4);
    put_common(&bytes, entry, 20);
    memcpy(bytes.data + bytes.n, entry->name, strlen(entry->name));
    bytes.n += strlen(entry->name);
    put(&bytes, 1, 2);
    put(&bytes, 16, 2);
    put(&bytes, entry->size, 8);
    put(&bytes, entry->size, 8);
    return response_write(response, bytes.data, bytes.n) && response_write(response, data, entry->size);
}

static bool write_central(struct response *response, const struct entry *entry, uint64_t *size) {
    struct bytes bytes = { .n = 0 };
    put(&bytes, CENTRAL_HEADER, 4);
    put(&bytes, VERSION64, 2);
    put_common(&bytes, entry, 28);
    put(&bytes, 0, 2); /* comment */
    put(&bytes, 0, 2); /* disk */
    put(&bytes, 0, 2);
    put(&bytes, 0, 4);
    put(&bytes, UINT32_MAX, 4);
    memcpy(bytes.data + bytes.n, entry->name, strlen(entry->name));
    bytes.n += strlen(entry->name);
    put(&bytes, 1, 2);
    put(&bytes, 24, 2);
    put(&bytes, entry->size, 8);
    put(&bytes, entry->size, 8);
    put(&bytes, entry->offset, 8);
    *size += bytes.n;
    return response_write(response, bytes.data, bytes.n);
}

static void write_end(struct response *response, uint64_t n, uint64_t size, uint64_t offset) {
    struct bytes bytes = { .n = 0 };
    put(&bytes, END64, 4);
    put(&bytes, 44, 8); /* what follows of this record */
    put(&bytes, VERSION64, 2);
    put(&bytes, VERSION64, 2);
    put(&bytes, 0, 4);
    put(&bytes, 0, 4);
    put(&bytes, n, 8);
    put(&bytes, n, 8);
    put(&bytes, size, 8);
    put(&bytes, offset, 8);
    put(&bytes, END64_LOCATOR, 4);
    put(&bytes, 0, 4);
    put(&bytes, offset + size, 8);
    put(&bytes, 1, 4);
    put(&bytes, END_RECORD, 4);
    put(&bytes, 0, 4);
    put(&bytes, UINT16_MAX, 2);
    put(&bytes, UINT16_MAX, 2);
    put(&bytes, UINT32_MAX, 4);
    put(&bytes, UINT32_MAX, 4);
    put(&bytes, 0, 2);
    (void)response_write(response, bytes.data, bytes.n);
}

void archive_stream(struct gallery *gallery, struct response *response, const json_t *rows) {
    struct entry *entries = text_alloc(json_array_size(rows), sizeof *entries);
    uint64_t offset = 0, size = 0;
    size_t i, n = 0;
    bool is_wanted = true;
    json_t *row;
    response_header(response, "Content-Disposition", "attachment; filename=\"cyberimage.zip\"");
    response_begin_stream(response, 200, "application/zip");
    json_array_foreach(rows, i, row) {
        struct problem ignored = { 0 };
        struct entry *entry = &entries[n];
        void *data = NULL;
        size_t n_bytes = 0;
        const char *id = json_get_text(row, "id");
        if (!is_wanted ||
            file_read(picture_open(gallery, id), CYI_MAX_IMAGE_FILE_BYTES, &data, &n_bytes, &ignored) != PROBLEM_NONE) {
            continue; /* removed since the request began */
        }
        (void)snprintf(entry->name, sizeof entry->name, "%s.png", id);
        entry->size = n_bytes;
        entry->offset = offset;
        entry->crc = (uint32_t)crc32(0, data, (uInt)n_bytes);
        is_wanted = write_entry(response, entry, data);
        offset += 30 + strlen(entry->name) + 20 + n_bytes;
        free(data);
        n++;
    }
    for (i = 0; i < n && is_wanted; i++) {
        is_wanted = write_central(response, &entries[i], &size);
    }
    if (is_wanted) {
        write_end(response, n, size, offset);
    }
    free(entries);
}
