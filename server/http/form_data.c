/* Multipart bodies: see form_data.h. */
#include "http/form_data.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_BOUNDARY 70

struct scan {
    char *at, *end;                   /* what is left */
    char delimiter[MAX_BOUNDARY + 5]; /* "\r\n--BOUNDARY" */
    size_t n_delimiter;
};

static enum problem_code fault(struct problem *problem, const char *what) {
    return problem_set(problem, PROBLEM_MALFORMED, NULL, "the form cannot be read: %s", what);
}

/* Finds NAME=VALUE among the parameters after the first semicolon of a header's value. The value, in quotes or not, is
 * copied with its escapes resolved. 1: found, 0: not there, -1: broken, doubled or too long. */
static int find_parameter(const char *header, const char *name, char *value, size_t size) {
    int found = 0;
    const char *c = header + strcspn(header, ";");
    while (*c == ';') {
        c++;
        c += strspn(c, " \t");
        const size_t n = strcspn(c, "=; \t\"");
        const bool is_it = n == strlen(name) && strncasecmp(c, name, n) == 0;
        size_t length = 0;
        c += n;
        if (*c != '=' || n == 0 || (is_it && found != 0)) {
            return *c == '\0' && n == 0 ? found : -1;
        }
        c++;
        const bool is_quoted = *c == '"';
        c += is_quoted;
        while (is_quoted ? *c != '"' : strchr("; \t\"", *c) == NULL) {
            c += is_quoted && c[0] == '\\' && (c[1] == '"' || c[1] == '\\');
            if (*c == '\0' || (is_it && length + 1 >= size)) {
                return -1;
            }
            if (is_it) {
                value[length++] = *c;
            }
            c++;
        }
        c += is_quoted;
        c += strspn(c, " \t");
        if (is_it) {
            value[length] = '\0';
            found = 1;
        }
    }
    return *c == '\0' ? found : -1;
}

static bool is_boundary(const char *text) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'()+_,-./:=? ";
    const size_t n = strlen(text);
    return n > 0 && text[strspn(text, allowed)] == '\0' && text[n - 1] != ' ';
}

/* A name for people: UTF-8 without control characters. */
static bool is_clean(const char *text) {
    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7F) {
            return false;
        }
    }
    return text_is_utf8(text);
}

/* Writes the text over the place it was read from, which is at least as long, and steps past it. */
static const char *keep(char **place, const char *text) {
    const size_t n = strlen(text) + 1;
    char *kept = memcpy(*place, text, n);
    *place += n;
    return kept;
}

static enum problem_code read_disposition(const char *value, char **place, struct form_part *part,
                                          struct problem *problem) {
    char name[FORM_MAX_NAME], file_name[FORM_MAX_NAME];
    if (strncasecmp(value, "form-data", 9) != 0 || strchr("; \t", value[9]) == NULL || part->name != NULL) {
        return fault(problem, "a part is no form-data");
    }
    const int has_name = find_parameter(value, "name", name, sizeof name);
    const int has_file = find_parameter(value, "filename", file_name, sizeof file_name);
    if (has_name != 1 || has_file < 0 || name[0] == '\0' || !is_clean(name) ||
        (has_file == 1 && !is_clean(file_name))) {
        return fault(problem, "a part has no good name");
    }
    part->name = keep(place, name);
    if (has_file == 1) { /* old browsers send whole paths */
        const char *base = file_name;
        for (const char *c = file_name; *c != '\0'; c++) {
            base = *c == '/' || *c == '\\' ? c + 1 : base;
        }
        part->file_name = keep(place, base);
    }
    return PROBLEM_NONE;
}

static enum problem_code read_header(char *line, struct form_part *part, struct problem *problem) {
    char *colon = strchr(line, ':');
    if (colon == NULL || colon == line || strcspn(line, " \t") < (size_t)(colon - line)) {
        return fault(problem, "a part's header has no name");
    }
    char *place = line;
    *colon = '\0';
    char *value = colon + 1 + strspn(colon + 1, " \t");
    if (strcasecmp(line, "Content-Disposition") == 0) {
        char *copy = text_copy(value);
        const enum problem_code st = read_disposition(copy, &place, part, problem);
        free(copy);
        return st;
    }
    if (strcasecmp(line, "Content-Type") == 0) {
        if (part->type != NULL || !is_clean(value)) {
            return fault(problem, "a part's type cannot be read");
        }
        part->type = value;
    } else if (strcasecmp(line, "Content-Transfer-Encoding") == 0 && strcasecmp(value, "binary") != 0 &&
               strcasecmp(value, "8bit") != 0 && strcasecmp(value, "7bit") != 0) {
        return fault(problem, "a part is encoded for mail");
    }
    return PROBLEM_NONE;
}

/* From the line after a delimiter to the delimiter after the part's data. */
static enum problem_code read_part(struct scan *scan, struct form_part *part, struct problem *problem) {
    const size_t left = (size_t)(scan->end - scan->at);
    char *blank = memmem(scan->at, left < FORM_MAX_HEAD ? left : FORM_MAX_HEAD, "\r\n\r\n", 4);
    if (blank == NULL) {
        return fault(problem, "a part's head does not end, or is longer than 4096 bytes");
    }
    char *data = blank + 4;
    blank[0] = '\0';
    if (memchr(scan->at, '\0', (size_t)(blank - scan->at)) != NULL) {
        return fault(problem, "a part's head holds a zero byte");
    }
    for (char *line = scan->at; line != NULL;) {
        char *next = strstr(line, "\r\n");
        if (next != NULL) {
            *next = '\0';
            next += 2;
        }
        const enum problem_code st = read_header(line, part, problem);
        if (st != PROBLEM_NONE) {
            return st;
        }
        line = next;
    }
    /* An empty part's delimiter begins with the line break that ends its head. */
    char *end = memmem(data - 2, (size_t)(scan->end - data) + 2, scan->delimiter, scan->n_delimiter);
    if (part->name == NULL || end == NULL) {
        return fault(problem, part->name == NULL ? "a part has no name" : "a part does not end");
    }
    scan->at = end + scan->n_delimiter;
    if (end < data) {
        data = end;
    }
    *end = '\0';
    part->data = data;
    part->n = (size_t)(end - data);
    return PROBLEM_NONE;
}

enum problem_code form_data_parse(const char *type, char *body, size_t n, struct form_part **ret_parts, size_t *ret_n,
                                  struct problem *problem) {
    enum problem_code st = PROBLEM_NONE;
    struct scan scan = { .at = body, .end = body + n };
    char boundary[MAX_BOUNDARY + 1];
    struct form_part *parts = NULL;
    size_t n_parts = 0;
    if (find_parameter(type, "boundary", boundary, sizeof boundary) != 1 || !is_boundary(boundary)) {
        return fault(problem, "its type names no good boundary");
    }
    scan.n_delimiter = (size_t)snprintf(scan.delimiter, sizeof scan.delimiter, "\r\n--%s", boundary);
    if (n < scan.n_delimiter || memcmp(body, scan.delimiter + 2, scan.n_delimiter - 2) != 0) {
        return fault(problem, "it does not begin with the boundary");
    }
    scan.at += scan.n_delimiter - 2;
    parts = text_alloc(FORM_MAX_PARTS, sizeof *parts);
    while (scan.end - scan.at >= 2 && memcmp(scan.at, "\r\n", 2) == 0) {
        scan.at += 2;
        if (n_parts == FORM_MAX_PARTS) {
            st = fault(problem, "it has more than 64 parts");
            goto done;
        }
        TRY(read_part(&scan, &parts[n_parts++], problem));
    }
    if (scan.end - scan.at < 2 || memcmp(scan.at, "--", 2) != 0) {
        st = fault(problem, "it does not end with the boundary");
        goto done;
    }
    scan.at += 2;
    if (scan.end != scan.at && (scan.end - scan.at != 2 || memcmp(scan.at, "\r\n", 2) != 0)) {
        st = fault(problem, "something follows its end");
        goto done;
    }
    *ret_parts = parts;
    *ret_n = n_parts;
    parts = NULL;
done:
    free(parts);
    return st;
}
