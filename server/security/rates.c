/* Token buckets by name: see gate_internal.h. */
#include "security/gate_internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define N_BUCKETS 4096 /* names at one time; the one that was used longest ago makes room within its set */
#define N_WAYS 8

struct bucket {
    uint64_t name; /* its hash; 0: free */
    double drops;
    int64_t seen_us;
};

struct rates {
    pthread_mutex_t mutex; /* guards buckets */
    struct bucket buckets[N_BUCKETS];
};

struct rates *rates_create(void) {
    struct rates *rates = text_alloc(1, sizeof *rates);
    (void)pthread_mutex_init(&rates->mutex, NULL);
    return rates;
}

void rates_free(struct rates *rates) {
    if (rates != NULL) {
        (void)pthread_mutex_destroy(&rates->mutex);
        free(rates);
    }
}

/* FNV-1a; a name that is crafted to meet another only shares its rate. */
static uint64_t hash_name(const char *name) {
    uint64_t hash = UINT64_C(14695981039346656037);
    for (; *name != '\0'; name++) {
        hash = (hash ^ (unsigned char)*name) * UINT64_C(1099511628211);
    }
    return hash != 0 ? hash : 1;
}

static struct bucket *find_bucket(struct rates *rates, uint64_t name, int64_t now_us, double limit) {
    struct bucket *set = &rates->buckets[name % (N_BUCKETS / N_WAYS) * N_WAYS], *oldest = set;
    for (int i = 0; i < N_WAYS; i++) {
        if (set[i].name == name) {
            return &set[i];
        }
        if (set[i].seen_us < oldest->seen_us) {
            oldest = &set[i];
        }
    }
    *oldest = (struct bucket){ name, limit, now_us };
    return oldest;
}

static int use(struct rates *rates, const char *name, int64_t limit, int period_seconds, double n) {
    const int64_t now_us = clock_monotonic_us();
    const double per_second = (double)limit / period_seconds;
    (void)pthread_mutex_lock(&rates->mutex);
    struct bucket *bucket = find_bucket(rates, hash_name(name), now_us, (double)limit);
    bucket->drops += (double)(now_us - bucket->seen_us) / (double)CLOCK_SECOND * per_second;
    bucket->drops = bucket->drops > (double)limit ? (double)limit : bucket->drops;
    bucket->seen_us = now_us;
    const double missing = 1.0 - bucket->drops;
    if (missing <= 0.0) {
        bucket->drops -= n;
    }
    (void)pthread_mutex_unlock(&rates->mutex);
    return missing <= 0.0 ? 0 : (int)(missing / per_second) + 1;
}

int rates_take(struct rates *rates, const char *name, int64_t limit, int period_seconds) {
    return use(rates, name, limit, period_seconds, 1.0);
}

int rates_ask(struct rates *rates, const char *name, int64_t limit, int period_seconds) {
    return use(rates, name, limit, period_seconds, 0.0);
}
