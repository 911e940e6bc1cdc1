/* file: answers from files, with conditions and ranges (RFC 9110). Of several ranges none is honoured: the whole file comes. */
#include "http/http_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HTTP_DATE "%a, %d %b %Y %H:%M:%S GMT"

bool condition_has_etag(const char *list, const char *etag) {
    const size_t n = strlen(etag);
    for (const char *c = list; *c != '\0';) {
        c += strspn(c, " \t,");
        if (strcmp(c, "*") == 0) {
            return true;
        }
        c += strncmp(c, "W/", 2) == 0 ? 2 : 0; /* weak comparison */
        if (strncmp(c, etag, n) == 0 && strchr(", \t", c[n]) != NULL) {
            return true;
        }
        c += strcspn(c, ",");
    }
    return false;
}

static bool read_date(const char *text, time_t *ret_time) {
    struct tm tm = { 0 };
    const char *end = text != NULL ? strptime(text, HTTP_DATE, &tm) : NULL;
    *ret_time = end != NULL && *end == '\0' ? timegm(&tm) : 0;
    return end != NULL && *end == '\0';
}

static bool is_unchanged(const struct request *request, const char *etag, time_t modified) {
    const char *tags = request_header(request, "If-None-Match");
    time_t since;
    if (tags != NULL) {
        return etag != NULL && condition_has_etag(tags, etag);
    }
    return read_date(request_header(request, "If-Modified-Since"), &since) && modified <= since;
}

/* Is the rest of the file that the client has still the same file's? */
static bool may_resume(const struct request *request, const char *etag, time_t modified) {
    const char *condition = request_header(request, "If-Range");
    time_t at;
    if (condition == NULL) {
        return true;
    }
    return condition[0] == '"' ? etag != NULL && strcmp(condition, etag) == 0
                               : read_date(condition, &at) && at == modified;
}

enum range { RANGE_ALL, RANGE_PART, RANGE_OUTSIDE };

static bool read_number(const char **text, uint64_t *ret_number) {
    const size_t n = strspn(*text, "0123456789");
    *ret_number = n > 0 && n < 19 ? strtoull(*text, NULL, 10) : UINT64_MAX;
    *text += n;
    return n > 0;
}

/* "bytes=0-99", "bytes=100-", "bytes=-100". What is not understood means all. */
static enum range read_range(const char *text, uint64_t size, uint64_t *ret_first, uint64_t *ret_n) {
    uint64_t first = 0, last = UINT64_MAX;
    if (text == NULL || strncasecmp(text, "bytes=", 6) != 0 || strchr(text, ',') != NULL) {
        return RANGE_ALL;
    }
    text += 6;
    const bool has_first = read_number(&text, &first);
    if (*text++ != '-') {
        return RANGE_ALL;
    }
    const bool has_last = read_number(&text, &last);
    if (*text != '\0' || (!has_first && !has_last) || (has_first && has_last && last < first)) {
        return RANGE_ALL;
    }
    if (!has_first) { /* the last bytes */
        first = last < size ? size - last : 0;
        last = last > 0 ? UINT64_MAX : 0;
        if (last == 0) {
            return RANGE_OUTSIDE;
        }
    }
    if (first >= size) {
        return RANGE_OUTSIDE;
    }
    *ret_first = first;
    *ret_n = (last < size - 1 ? last : size - 1) - first + 1;
    return RANGE_PART;
}

/* The name twice: what is left of it in ASCII for old clients, and in full (RFC 6266). */
static void offer_as(struct response *response, const char *name) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    const size_t n = strlen(name);
    char *ascii = text_alloc(n + 1, 1), *encoded = text_alloc(3 * n + 1, 1), *out = encoded;
    for (size_t i = 0; i < n; i++) {
        const bool is_plain = strchr(plain, name[i]) != NULL;
        ascii[i] = name[i];
        if (!is_plain) {
            ascii[i] = name[i] == ' ' ? ' ' : '_';
        }
        out += sprintf(out, is_plain ? "%c" : "%%%02X", (unsigned char)name[i]);
    }
    char *value = text_format("attachment; filename=\"%s\"; filename*=UTF-8''%s", ascii, encoded);
    response_header(response, "Content-Disposition", value);
    free(value);
    free(encoded);
    free(ascii);
}

enum problem_code response_file(struct response *response, int fd, const char *type, const char *etag,
                                bool is_immutable, const char *name, struct problem *problem) {
    const struct request *request = response->request;
    struct stat info;
    struct tm tm;
    char date[40] = "", content_range[80];
    char *quoted = etag != NULL ? text_format("\"%s\"", etag) : NULL;
    uint64_t first = 0;
    enum problem_code st = PROBLEM_NONE;
    response_clear(response);
    response->fd = fd;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        st = problem_set(problem, PROBLEM_INTERNAL, NULL, "the file cannot be read");
        goto done;
    }
    const uint64_t size = (uint64_t)info.st_size;
    uint64_t n = size;
    (void)strftime(date, sizeof date, HTTP_DATE, gmtime_r(&info.st_mtime, &tm));
    response->is_file = true;
    response->type = text_copy(type);
    if (quoted != NULL) {
        response_header(response, "ETag", quoted);
    }
    response_header(response, "Last-Modified", date);
    response_header(response, "Accept-Ranges", "bytes");
    response_header(response, "Cache-Control",
                    is_immutable ? "private, max-age=31536000, immutable" : "private, no-cache");
    if (name != NULL) {
        offer_as(response, name);
    } else {
        response_header(response, "Content-Disposition", "inline");
    }
    if (is_unchanged(request, quoted, info.st_mtime)) {
        response->status = 304;
        goto done;
    }
    const enum range range = may_resume(request, quoted, info.st_mtime)
                                 ? read_range(request_header(request, "Range"), size, &first, &n)
                                 : RANGE_ALL;
    if (range == RANGE_OUTSIDE) {
        (void)snprintf(content_range, sizeof content_range, "bytes */%llu", (unsigned long long)size);
        response_header(response, "Content-Range", content_range);
        st = problem_set(problem, PROBLEM_RANGE, NULL, "the file has %llu bytes, and the range lies outside",
                         (unsigned long long)size);
        goto done;
    }
    if (range == RANGE_PART) {
        (void)snprintf(content_range, sizeof content_range, "bytes %llu-%llu/%llu", (unsigned long long)first,
                       (unsigned long long)(first + n - 1), (unsigned long long)size);
        response_header(response, "Content-Range", content_range);
    }
    response->status = range == RANGE_PART ? 206 : 200;
    response->offset = first;
    response->n = (size_t)n;
    response->kind = n > 0 ? ANSWER_FILE : ANSWER_BYTES;
done:
    free(quoted);
    return st;
}
