/* What both dialects of the built-in enricher share: see builtin.h. */
#include "enrich/builtin.h"

#include <stdlib.h>
#include <string.h>

char *builtin_enrich(const struct builtin_request *request) {
    return request->style == CAPTION_NEON ? builtin_neon(request) : builtin_prose(request);
}

/* splitmix64: every seed gives a good row of numbers, also neighbours. */
uint64_t builtin_random(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Letters of other alphabets are letters. An apostrophe within a word goes with it: "don't" is one word. */
static bool is_letter(unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
}

char *builtin_words(const char *text) {
    char *words = text_alloc(strlen(text) + 3, 2), *out = words;
    bool is_quoted = false;
    *out++ = ' ';
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"') {
            is_quoted = !is_quoted && strchr(text + 1, '"') != NULL;
        }
        if (!is_quoted && is_letter(c)) {
            *out++ = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        } else if (c != '\'' && out[-1] != ' ') {
            *out++ = ' ';
        }
    }
    if (out[-1] != ' ') {
        *out++ = ' ';
    }
    *out = '\0';
    return words;
}

bool builtin_has(const char *words, const char *wanted) {
    const size_t n = strlen(wanted);
    for (const char *place = strstr(words, wanted); place != NULL; place = strstr(place + 1, wanted)) {
        const char *end = place + n;
        end += *end == 's' ? 1 : strncmp(end, "es ", 3) == 0 ? 2 : 0;
        if (place > words && place[-1] == ' ' && *end == ' ') {
            return true;
        }
    }
    return false;
}

bool builtin_shares_word(const char *text, const char *sentence_words) {
    static const char *const small[] = { "the", "and", "any", "all", "too", "with", "for", "from", "over", "very" };
    char *words = builtin_words(text), *rest = words;
    bool is_shared = false;
    for (char *word = strsep(&rest, " "); word != NULL && !is_shared; word = strsep(&rest, " ")) {
        size_t n = strlen(word);
        bool is_small = n < 3;
        for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
            is_small = is_small || strcmp(word, small[i]) == 0;
        }
        if (!is_small && n > 3 && word[n - 1] == 's') {
            word[n - 1] = '\0'; /* builtin_has finds the plural as well */
        }
        is_shared = !is_small && builtin_has(sentence_words, word);
    }
    free(words);
    return is_shared;
}

char *builtin_ruled_out(char *words, const char *negative) {
    static const char *const marks[] = { " no ", " without ", " not ", " never ", " free of " };
    const size_t n_negative = negative != NULL ? strlen(negative) : 0;
    char *result = text_alloc(n_negative + 2 * strlen(words) + 1, 1), *end = result;
    if (n_negative > 0) {
        memcpy(result, negative, n_negative);
        end += n_negative;
    }
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        for (char *place = strstr(words, marks[i]); place != NULL; place = strstr(place + 1, marks[i])) {
            char *word = place + strlen(marks[i]);
            for (int n = 0; n < 2 && *word != '\0'; n++) { /* "no heavy rain", "without people or cars" */
                const size_t length = strcspn(word, " ");
                n = strncmp(word, "or ", 3) == 0 || strncmp(word, "nor ", 4) == 0 ? -1 : n;
                *end++ = ' ';
                memcpy(end, word, length);
                end += length;
                memset(word, '.', length);
                word += length + (word[length] == ' ');
            }
        }
    }
    return result;
}
