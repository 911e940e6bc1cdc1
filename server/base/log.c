/* The log: see log.h. */
#include "base/log.h"

#include "base/clock.h"
#include "text.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* one line at a time */
static enum log_level lowest_level = LOG_INFO;
static bool writes_json;

void log_configure(enum log_level lowest, bool is_json) {
    lowest_level = lowest;
    writes_json = is_json;
}

/* Values with blanks, quotes or "=" are quoted, so that a line can be split again. */
static void write_value(FILE *out, const char *text) {
    const bool is_plain = text[0] != '\0' && strpbrk(text, " \"=\\") == NULL;
    if (is_plain) {
        text_write_safe(out, text, false);
        return;
    }
    fputc('"', out);
    for (const char *rest = text; *rest != '\0';) {
        const size_t n = strcspn(rest, "\"\\");
        char *piece = text_format("%.*s", (int)n, rest);
        text_write_safe(out, piece, false);
        free(piece);
        rest += n;
        if (*rest != '\0') {
            fputc('\\', out);
            fputc(*rest++, out);
        }
    }
    fputc('"', out);
}

static void write_text(FILE *out, const char *time, const char *level, const char *name, json_t *fields) {
    const char *key;
    json_t *value;
    fprintf(out, "%s %s %s", time, level, name);
    json_object_foreach(fields, key, value) {
        fprintf(out, " %s=", key);
        if (json_is_string(value)) {
            write_value(out, json_string_value(value));
        } else {
            char *dump = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
            text_write_safe(out, dump != NULL ? dump : "?", false);
            free(dump);
        }
    }
}

static void write_json(FILE *out, const char *time, const char *level, const char *name, json_t *fields) {
    json_t *line = json_pack("{s:s, s:s, s:s}", "time", time, "level", level, "event", name);
    (void)json_object_update_missing(line, fields);
    char *dump = json_dumps(line, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(6));
    for (const char *c = dump != NULL ? dump : "{}"; *c != '\0'; c++) {
        if (*c == 0x7F) { /* the only control character that is left as it is */
            fputs("\\u007f", out);
        } else {
            fputc(*c, out);
        }
    }
    free(dump);
    json_decref(line);
}

void log_event(enum log_level level, const char *name, json_t *fields) {
    static const char *const levels[] = { "DEBUG", "INFO", "WARN", "ERROR" };
    if (level >= lowest_level) {
        char time[CLOCK_TEXT];
        char *line = NULL;
        size_t n = 0;
        FILE *out = open_memstream(&line, &n);
        if (out == NULL) {
            text_out_of_memory();
        }
        (writes_json ? write_json : write_text)(out, clock_local_text(time, clock_now_us()), levels[level], name,
                                                fields);
        fputc('\n', out);
        (void)fclose(out);
        (void)pthread_mutex_lock(&mutex);
        (void)fwrite(line, 1, n, stderr);
        (void)fflush(stderr);
        (void)pthread_mutex_unlock(&mutex);
        free(line);
    }
    json_decref(fields);
}
