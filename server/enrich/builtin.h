/* builtin: the enricher that needs nobody: a grammar and word lists of our own. The same request gives the same prompt.
 * It keeps the user's words first and as they are, and adds nothing that they, what they rule out ("no rain") or the
 * negative prompt speak against. */
#ifndef SERVER_ENRICH_BUILTIN_H
#define SERVER_ENRICH_BUILTIN_H

#include "enrich/directions.h"

struct builtin_request {
    const char *prompt;   /* UTF-8 */
    const char *negative; /* or NULL */
    unsigned directions;  /* bits 1 << enum direction */
    /* A text that stands for a direction's own sentences: somebody wrote it for this studio or this request. NULL: its own. */
    const char *instructions[N_DIRECTIONS];
    enum caption_style style;
    uint64_t seed;
};

/* A new string. */
char *builtin_enrich(const struct builtin_request *request);

/* ---- Its parts ---- */

/* Lower-case words of text with one blank around each, without what stands in quotes: " a cat on the roof ". A new string. */
char *builtin_words(const char *text);
/* Does words (of builtin_words) hold this word or these words, also with a plural's s? */
bool builtin_has(const char *words, const char *wanted);
/* Is one of the words of text (at least three letters, not "the" and the like) among those of sentence, or its plural? */
bool builtin_shares_word(const char *text, const char *sentence_words);
/* The negative prompt, and what words (of builtin_words) rule out: "no heavy rain", "without people". Those are taken
 * out of words, since they say what is not in the picture. A new string. */
char *builtin_ruled_out(char *words, const char *negative);
uint64_t builtin_random(uint64_t *state);

char *builtin_prose(const struct builtin_request *request);
/* In the words of the neon model: models/neon/README.md. */
char *builtin_neon(const struct builtin_request *request);

#endif
