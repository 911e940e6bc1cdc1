/* UUIDv7: see id.h. The 12 bits behind the milliseconds count within one, so that ids of one process never go backwards. */
#include "base/id.h"

#include "base/clock.h"

#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

const char *id_make(char buffer[ID_TEXT]) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards last: milliseconds × 4096 + counter */
    static uint64_t last;
    uint8_t noise[8];
    randombytes_buf(noise, sizeof noise);
    (void)pthread_mutex_lock(&mutex);
    uint64_t next = (uint64_t)(clock_now_us() / 1000) << 12;
    if (next <= last) {
        next = last + 1;
    }
    last = next;
    (void)pthread_mutex_unlock(&mutex);
    const uint64_t ms = next >> 12;
    (void)snprintf(buffer, ID_TEXT, "%08x-%04x-7%03x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                   (unsigned)(ms >> 16) & 0xFFFFFFFFU, (unsigned)(ms & 0xFFFF), (unsigned)(next & 0xFFF),
                   (noise[0] & 0x3F) | 0x80, noise[1], noise[2], noise[3], noise[4], noise[5], noise[6], noise[7]);
    return buffer;
}

bool id_is_valid(const char *text) {
    for (int i = 0; i < ID_TEXT - 1; i++) {
        const bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
        const bool is_digit = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
        if (is_dash ? text[i] != '-' : !is_digit) {
            return false; /* the end of a shorter text as well */
        }
    }
    return text[ID_TEXT - 1] == '\0';
}
