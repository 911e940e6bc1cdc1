/* Secrets and passwords: see gate_internal.h. */
#include "security/gate_internal.h"

#include <sodium.h>
#include <string.h>

#define PASSWORD_MEMORY_BYTES ((size_t)64 * 1024 * 1024)
#define PASSWORD_PASSES 3

void secret_hash(const char *secret, char ret_hash[SECRET_HASH_TEXT]) {
    uint8_t hash[crypto_hash_sha256_BYTES];
    (void)crypto_hash_sha256(hash, (const uint8_t *)secret, strlen(secret));
    (void)sodium_bin2hex(ret_hash, SECRET_HASH_TEXT, hash, sizeof hash);
}

void secret_make(char ret_secret[SECRET_TEXT], char ret_hash[SECRET_HASH_TEXT]) {
    uint8_t bytes[SECRET_BYTES];
    randombytes_buf(bytes, sizeof bytes);
    (void)sodium_bin2base64(ret_secret, SECRET_TEXT, bytes, sizeof bytes, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    secret_hash(ret_secret, ret_hash);
    sodium_memzero(bytes, sizeof bytes);
}

bool secret_is_equal(const char hash_a[SECRET_HASH_TEXT], const char hash_b[SECRET_HASH_TEXT]) {
    return sodium_memcmp(hash_a, hash_b, SECRET_HASH_TEXT) == 0;
}

/* Many sign-ins at one time must not take all memory: one after the other. */
static pthread_mutex_t argon_mutex = PTHREAD_MUTEX_INITIALIZER;

enum problem_code password_hash(const char *password, char **ret_hash, struct problem *problem) {
    char hash[crypto_pwhash_STRBYTES];
    const size_t n = strlen(password);
    if (n < MIN_PASSWORD_BYTES || n > MAX_PASSWORD_BYTES) {
        return problem_set(problem, PROBLEM_INVALID, "password", "a password has from %d to %d bytes, this one has %zu",
                           MIN_PASSWORD_BYTES, MAX_PASSWORD_BYTES, n);
    }
    (void)pthread_mutex_lock(&argon_mutex);
    const int code =
        crypto_pwhash_str_alg(hash, password, n, PASSWORD_PASSES, PASSWORD_MEMORY_BYTES, crypto_pwhash_ALG_ARGON2ID13);
    (void)pthread_mutex_unlock(&argon_mutex);
    if (code != 0) {
        return problem_set(problem, PROBLEM_UNAVAILABLE, NULL, "there is not enough memory to hash a password");
    }
    *ret_hash = text_copy(hash);
    return PROBLEM_NONE;
}

bool password_is_right(const char *hash, const char *password) {
    char other[crypto_pwhash_STRBYTES];
    bool is_right = false;
    (void)pthread_mutex_lock(&argon_mutex);
    if (hash != NULL) {
        is_right = crypto_pwhash_str_verify(hash, password, strlen(password)) == 0;
    } else if (crypto_pwhash_str_alg(other, password, strlen(password), PASSWORD_PASSES, PASSWORD_MEMORY_BYTES,
                                     crypto_pwhash_ALG_ARGON2ID13) != 0) {
        sodium_memzero(other, sizeof other); /* no memory: it was quicker, and is false all the same */
    }
    (void)pthread_mutex_unlock(&argon_mutex);
    return is_right;
}
