/* EXIF blocks: see exif.h. */
#include "io/exif.h"

#include <string.h>

#include "io/charset.h"

#define TAG_IMAGE_DESCRIPTION 0x010E
#define TAG_ORIENTATION 0x0112
#define TAG_EXIF_IFD 0x8769
#define TAG_USER_COMMENT 0x9286
#define TYPE_ASCII 2
#define TYPE_SHORT 3
#define TYPE_LONG 4
#define TYPE_UNDEFINED 7
#define ENTRY_BYTES 12
#define CODE_BYTES 8 /* of UserComment: the name of its character set */

/* ---- Reading ---- */

struct tiff {
    const uint8_t *data;
    size_t size_bytes;
    bool is_big_endian;
};

struct entry {
    unsigned type;
    uint32_t count;
    const uint8_t *value; /* the four bytes in the entry: the value itself, or where it is */
};

static unsigned get_u16(const struct tiff *tiff, const uint8_t *at) {
    return tiff->is_big_endian ? (unsigned)at[0] << 8 | at[1] : (unsigned)at[1] << 8 | at[0];
}

static uint32_t get_u32(const struct tiff *tiff, const uint8_t *at) {
    uint32_t first = get_u16(tiff, at), second = get_u16(tiff, at + 2);
    return tiff->is_big_endian ? first << 16 | second : second << 16 | first;
}

static bool open_tiff(const uint8_t *data, size_t size_bytes, struct tiff *ret_tiff) {
    if (size_bytes >= 6 && memcmp(data, "Exif\0\0", 6) == 0) {
        data += 6;
        size_bytes -= 6;
    }
    if (size_bytes < 8 || (memcmp(data, "MM\0\x2a", 4) != 0 && memcmp(data, "II\x2a\0", 4) != 0)) {
        return false;
    }
    *ret_tiff = (struct tiff){ data, size_bytes, data[0] == 'M' };
    return true;
}

/* The entry with the tag in the folder (IFD) at offset. */
static bool find_entry(const struct tiff *tiff, size_t offset, unsigned tag, struct entry *ret_entry) {
    if (offset > tiff->size_bytes || tiff->size_bytes - offset < 2) {
        return false;
    }
    size_t n_entries = get_u16(tiff, tiff->data + offset);
    size_t n_fitting = (tiff->size_bytes - offset - 2) / ENTRY_BYTES;
    for (size_t i = 0; i < n_entries && i < n_fitting; i++) {
        const uint8_t *at = tiff->data + offset + 2 + i * ENTRY_BYTES;
        if (get_u16(tiff, at) == tag) {
            *ret_entry = (struct entry){ get_u16(tiff, at + 2), get_u32(tiff, at + 4), at + 8 };
            return true;
        }
    }
    return false;
}

/* The bytes of an entry whose elements are bytes; NULL when they are not inside the block. */
static const uint8_t *entry_bytes(const struct tiff *tiff, const struct entry *entry) {
    if (entry->type != TYPE_ASCII && entry->type != TYPE_UNDEFINED) {
        return NULL;
    }
    if (entry->count <= 4) {
        return entry->value;
    }
    size_t offset = get_u32(tiff, entry->value);
    if (offset > tiff->size_bytes || entry->count > tiff->size_bytes - offset) {
        return NULL;
    }
    return tiff->data + offset;
}

int exif_get_orientation(const uint8_t *data, size_t size_bytes) {
    struct tiff tiff;
    struct entry entry;
    if (!open_tiff(data, size_bytes, &tiff) ||
        !find_entry(&tiff, get_u32(&tiff, tiff.data + 4), TAG_ORIENTATION, &entry) || entry.type != TYPE_SHORT ||
        entry.count != 1) {
        return 1;
    }
    unsigned orientation = get_u16(&tiff, entry.value);
    return orientation >= 1 && orientation <= 8 ? (int)orientation : 1;
}

/* Writers disagree about the byte order of "UNICODE" comments: a mark decides, else the order in which more characters
 * are below U+0100, else the block's own. */
static bool is_utf16_big_endian(const struct tiff *tiff, const uint8_t *bytes, size_t size_bytes) {
    size_t n_zero[2] = { 0, 0 };
    if (size_bytes >= 2 && ((bytes[0] == 0xFE && bytes[1] == 0xFF) || (bytes[0] == 0xFF && bytes[1] == 0xFE))) {
        return bytes[0] == 0xFE;
    }
    for (size_t i = 0; i + 1 < size_bytes; i += 2) {
        n_zero[0] += bytes[i] == 0;
        n_zero[1] += bytes[i + 1] == 0;
    }
    return n_zero[0] != n_zero[1] ? n_zero[0] > n_zero[1] : tiff->is_big_endian;
}

/* UserComment: eight bytes that name the character set, then the text. */
static char *decode_comment(const struct cyi_allocator *allocator, const struct tiff *tiff, const uint8_t *bytes,
                            size_t size_bytes) {
    const uint8_t *text = bytes + CODE_BYTES;
    size_t n = size_bytes - CODE_BYTES;
    if (memcmp(bytes, "UNICODE", CODE_BYTES) != 0) {
        return charset_from_utf8(allocator, text, n); /* "ASCII" and undefined */
    }
    bool is_big_endian = is_utf16_big_endian(tiff, text, n);
    if (n >= 2 && ((text[0] == 0xFE && text[1] == 0xFF) || (text[0] == 0xFF && text[1] == 0xFE))) {
        text += 2;
        n -= 2;
    }
    return charset_from_utf16(allocator, text, n, is_big_endian);
}

static bool looks_like_object(const uint8_t *bytes, size_t size_bytes) {
    return size_bytes > 0 && bytes[0] == '{';
}

enum cyi_status exif_read_texts(const struct cyi_allocator *allocator, const uint8_t *data, size_t size_bytes,
                                struct image_texts *texts, struct cyi_error *err) {
    struct tiff tiff;
    struct entry entry, folder;
    const uint8_t *bytes;
    if (!open_tiff(data, size_bytes, &tiff) || tiff.size_bytes > IMAGE_MAX_TEXT_BYTES) {
        return CYI_OK;
    }
    size_t first = get_u32(&tiff, tiff.data + 4);
    if (texts->json == NULL && find_entry(&tiff, first, TAG_IMAGE_DESCRIPTION, &entry)) {
        bytes = entry_bytes(&tiff, &entry);
        if (bytes != NULL && looks_like_object(bytes, entry.count)) {
            texts->json = charset_from_utf8(allocator, bytes, entry.count);
            if (texts->json == NULL) {
                return error_memory(err, "a text of a picture", entry.count);
            }
        }
    }
    if (texts->parameters == NULL && find_entry(&tiff, first, TAG_EXIF_IFD, &folder) && folder.type == TYPE_LONG &&
        find_entry(&tiff, get_u32(&tiff, folder.value), TAG_USER_COMMENT, &entry)) {
        bytes = entry_bytes(&tiff, &entry);
        if (bytes != NULL && entry.count > CODE_BYTES) {
            texts->parameters = decode_comment(allocator, &tiff, bytes, entry.count);
            if (texts->parameters == NULL) {
                return error_memory(err, "a text of a picture", entry.count);
            }
        }
    }
    return CYI_OK;
}

/* ---- Writing, in big-endian order as A1111 does ---- */

static void put_u16(uint8_t *at, unsigned value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put_u32(uint8_t *at, size_t value) {
    put_u16(at, (unsigned)(value >> 16) & 0xFFFF);
    put_u16(at + 2, (unsigned)value & 0xFFFF);
}

static void put_entry(uint8_t *at, unsigned tag, unsigned type, size_t count, size_t value) {
    put_u16(at, tag);
    put_u16(at + 2, type);
    put_u32(at + 4, count);
    put_u32(at + 8, value);
}

/* Layout: header, first folder, description, Exif folder, comment. Offsets count from the header; an entry's are filled
 * in when the thing it points to is appended. */
enum cyi_status exif_write_texts(struct byte_buffer *out, const char *parameters, const char *json,
                                 struct cyi_error *err) {
    static const uint8_t header[8] = { 'M', 'M', 0, 42, 0, 0, 0, 8 };
    uint8_t folder[2 + 2 * ENTRY_BYTES + 4] = { 0 }, exif_folder[2 + ENTRY_BYTES + 4] = { 0, 1 };
    unsigned n_entries = (json != NULL ? 1u : 0u) + (parameters != NULL ? 1u : 0u);
    size_t start = out->size_bytes, folder_bytes = 2 + n_entries * (size_t)ENTRY_BYTES + 4;
    size_t json_bytes = json != NULL ? strlen(json) + 1 : 0;
    size_t json_offset = sizeof header + folder_bytes, exif_offset = json_offset + json_bytes;
    uint8_t *entry = folder + 2;
    enum cyi_status st = CYI_OK;
    put_u16(folder, n_entries);
    if (json != NULL) {
        put_entry(entry, TAG_IMAGE_DESCRIPTION, TYPE_ASCII, json_bytes, json_offset);
        if (json_bytes <= 4) { /* the rule for values that fit in their entry */
            memset(entry + 8, 0, 4);
            memcpy(entry + 8, json, json_bytes);
        }
        entry += ENTRY_BYTES;
    }
    if (parameters != NULL) {
        put_entry(entry, TAG_EXIF_IFD, TYPE_LONG, 1, exif_offset);
    }
    TRY(byte_buffer_append(out, header, sizeof header, err));
    TRY(byte_buffer_append(out, folder, folder_bytes, err));
    TRY(byte_buffer_append(out, json, json_bytes, err));
    if (parameters != NULL) {
        size_t comment_start = out->size_bytes + sizeof exif_folder;
        TRY(byte_buffer_append(out, exif_folder, sizeof exif_folder, err));
        TRY(byte_buffer_append(out, "UNICODE", CODE_BYTES, err));
        TRY(charset_append_utf16be(out, parameters, err));
        put_entry(out->data + start + exif_offset + 2, TAG_USER_COMMENT, TYPE_UNDEFINED,
                  out->size_bytes - comment_start, comment_start - start);
    }
done:
    return st;
}
