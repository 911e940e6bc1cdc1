/* Times: see clock.h. */
#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t read_clock(clockid_t id) {
    struct timespec now;
    (void)clock_gettime(id, &now);
    return (int64_t)now.tv_sec * CLOCK_SECOND + now.tv_nsec / 1000;
}

int64_t clock_now_us(void) {
    return read_clock(CLOCK_REALTIME);
}

int64_t clock_monotonic_us(void) {
    return read_clock(CLOCK_MONOTONIC);
}

/* Whole seconds and what is left of them, also before 1970. */
static time_t split(int64_t time_us, int *ret_us) {
    int64_t seconds = time_us / CLOCK_SECOND, rest = time_us % CLOCK_SECOND;
    if (rest < 0) {
        rest += CLOCK_SECOND;
        seconds--;
    }
    *ret_us = (int)rest;
    return (time_t)seconds;
}

const char *clock_utc_text(char buffer[CLOCK_TEXT], int64_t time_us) {
    struct tm parts;
    int us = 0;
    const time_t seconds = split(time_us, &us);
    if (gmtime_r(&seconds, &parts) == NULL) {
        (void)snprintf(buffer, CLOCK_TEXT, "-");
        return buffer;
    }
    const size_t n = strftime(buffer, CLOCK_TEXT, "%Y-%m-%dT%H:%M:%S", &parts);
    (void)snprintf(buffer + n, CLOCK_TEXT - n, ".%06dZ", us);
    return buffer;
}

const char *clock_local_text(char buffer[CLOCK_TEXT], int64_t time_us) {
    struct tm parts;
    int us = 0;
    const time_t seconds = split(time_us, &us);
    if (localtime_r(&seconds, &parts) == NULL) {
        (void)snprintf(buffer, CLOCK_TEXT, "-");
        return buffer;
    }
    const size_t n = strftime(buffer, CLOCK_TEXT, "%Y-%m-%dT%H:%M:%S", &parts);
    const long minutes = parts.tm_gmtoff / 60;
    const long distance = minutes < 0 ? -minutes : minutes;
    (void)snprintf(buffer + n, CLOCK_TEXT - n, ".%03d%c%02d:%02d", us / 1000, minutes < 0 ? '-' : '+',
                   (int)(distance / 60 % 100), (int)(distance % 60));
    return buffer;
}

/* The fraction of a second and the zone that follow "…:SS". */
static bool parse_tail(const char *tail, int64_t *ret_us) {
    int64_t us = 0;
    if (*tail == '.') {
        int64_t unit = CLOCK_SECOND / 10;
        for (tail++; *tail >= '0' && *tail <= '9'; tail++, unit /= 10) {
            us += (*tail - '0') * unit;
        }
    }
    int hours = 0, minutes = 0, used = 0;
    if ((*tail == '+' || *tail == '-') && sscanf(tail + 1, "%2d:%2d%n", &hours, &minutes, &used) == 2 && used == 5 &&
        tail[6] == '\0' && hours < 24 && minutes < 60) {
        const int64_t offset = (hours * 60 + minutes) * 60 * CLOCK_SECOND;
        *ret_us = *tail == '+' ? us - offset : us + offset;
        return true;
    }
    *ret_us = us;
    return (*tail == 'Z' || *tail == 'z') && tail[1] == '\0';
}

bool clock_parse(const char *text, int64_t *ret_time_us) {
    struct tm parts = { 0 };
    int64_t us = 0;
    const char *tail = strptime(text, "%Y-%m-%d", &parts);
    if (tail == NULL || tail - text != 10) {
        return false;
    }
    if (*tail != '\0') {
        const char *time_of_day = tail + 1;
        if (*tail != 'T' && *tail != 't' && *tail != ' ') {
            return false;
        }
        tail = strptime(time_of_day, "%H:%M:%S", &parts);
        if (tail == NULL || tail - time_of_day != 8 || !parse_tail(tail, &us)) {
            return false;
        }
    }
    *ret_time_us = (int64_t)timegm(&parts) * CLOCK_SECOND + us;
    return true;
}
