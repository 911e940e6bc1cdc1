/* Ed25519 by libsodium: see signing.h. */
#include "base/signing.h"

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEED_TEXT (2 * crypto_sign_SEEDBYTES + 1)
_Static_assert(sizeof((struct signing_key *)NULL)->public_key == crypto_sign_PUBLICKEYBYTES, "the public key's size");
_Static_assert(sizeof((struct signing_key *)NULL)->secret_key == crypto_sign_SECRETKEYBYTES, "the secret key's size");
_Static_assert(SIGNING_SIGNATURE_TEXT == 2 * crypto_sign_BYTES + 1, "the signature's size");

static bool read_hex(const char *text, uint8_t *bytes, size_t n) {
    size_t got = 0;
    return text != NULL && sodium_hex2bin(bytes, n, text, strlen(text), NULL, &got, NULL) == 0 && got == n;
}

/* The file is there whole or not at all, also after a power cut. */
static enum problem_code make_file(const char *path, struct problem *problem) {
    uint8_t seed[crypto_sign_SEEDBYTES];
    char text[SEED_TEXT];
    char *temporary = text_format("%s.part", path), *folder = files_folder_of(path);
    randombytes_buf(seed, sizeof seed);
    (void)sodium_bin2hex(text, sizeof text, seed, sizeof seed);
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const bool is_written = fd >= 0 && write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1 && fsync(fd) == 0;
    const int folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool is_there = is_written && rename(temporary, path) == 0 && folder_fd >= 0 && fsync(folder_fd) == 0;
    const enum problem_code st = is_there ? PROBLEM_NONE : problem_system(problem, errno, "the key of the audit log");
    if (fd >= 0) {
        (void)close(fd);
    }
    if (folder_fd >= 0) {
        (void)close(folder_fd);
    }
    sodium_memzero(seed, sizeof seed);
    sodium_memzero(text, sizeof text);
    free(temporary);
    free(folder);
    return st;
}

enum problem_code signing_key_load(const char *data_folder, bool may_make, struct signing_key *ret_key,
                                   struct problem *problem) {
    char *path = files_join(data_folder, "audit.key");
    uint8_t seed[crypto_sign_SEEDBYTES];
    struct cyi_error err = { 0 };
    void *text = NULL;
    size_t n = 0;
    enum problem_code st = PROBLEM_NONE;
    if (!files_exists(path)) {
        if (!may_make) {
            st = problem_set(problem, PROBLEM_NOT_FOUND, NULL, "there is no key %.400s", path);
            goto done;
        }
        TRY(make_file(path, problem));
    }
    if (files_read(path, SEED_TEXT, &text, &n, &err) != CYI_OK) {
        st = problem_set(problem, PROBLEM_INTERNAL, NULL, "%.480s", err.text);
        goto done;
    }
    char copy[SEED_TEXT] = "";
    (void)snprintf(copy, sizeof copy, "%.*s", (int)n, (const char *)text);
    copy[strcspn(copy, "\r\n")] = '\0';
    if (!read_hex(copy, seed, sizeof seed)) {
        st = problem_set(problem, PROBLEM_INTERNAL, NULL, "%.400s holds no key: 64 hex digits are expected", path);
    } else {
        (void)crypto_sign_seed_keypair(ret_key->public_key, ret_key->secret_key, seed);
    }
    sodium_memzero(copy, sizeof copy);
    sodium_memzero(text, n);
done:
    sodium_memzero(seed, sizeof seed);
    free(text);
    free(path);
    return st;
}

const char *signing_public_text(const struct signing_key *key, char buffer[SIGNING_PUBLIC_TEXT]) {
    return sodium_bin2hex(buffer, SIGNING_PUBLIC_TEXT, key->public_key, sizeof key->public_key);
}

void signing_sign(const struct signing_key *key, const char *text, char ret_signature[SIGNING_SIGNATURE_TEXT]) {
    uint8_t signature[crypto_sign_BYTES];
    (void)crypto_sign_detached(signature, NULL, (const uint8_t *)text, strlen(text), key->secret_key);
    (void)sodium_bin2hex(ret_signature, SIGNING_SIGNATURE_TEXT, signature, sizeof signature);
}

bool signing_is_right(const struct signing_key *key, const char *text, const char *signature) {
    uint8_t bytes[crypto_sign_BYTES];
    return read_hex(signature, bytes, sizeof bytes) &&
           crypto_sign_verify_detached(bytes, (const uint8_t *)text, strlen(text), key->public_key) == 0;
}
