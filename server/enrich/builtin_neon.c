/* The built-in enricher for the bundled model: its own few words, one of each kind at most, after those of the user. */
#include "enrich/builtin.h"

#include <stdlib.h>
#include <string.h>

enum kind { STYLE, GROUND, BACKGROUND, SKY, WEATHER, COLOUR, N_KINDS };

/* Words of the model's captions, and others by which a prompt speaks of the same kind. */
static const struct {
    const char *words[14];
    const char *others; /* between blanks */
} kinds[N_KINDS] = {
    [STYLE] = { { "neon sign", "hologram", "silhouette", "statue" },
                " sign holographic shadow sculpture painting photo drawing logo " },
    [GROUND] = { { "wet street", "neon grid", "ocean", "desert", "rooftop", "alley" },
                 " street road grid sea water beach lake river sand dune roof ground floor forest cliff hill field "
                 "garden bridge harbour harbor table " },
    [BACKGROUND] = { { "skyline", "mountains" }, " city mountain tower building forest background wall " },
    [SKY] = { { "retro sun", "moon", "ringed planet", "aurora", "stars" },
              " sun star sky planet day daylight noon morning sunset sunrise dawn dusk evening clouds " },
    [WEATHER] = { { "rain", "snow", "fog" }, " rainy snowy foggy mist misty haze storm clear sunny dry " },
    [COLOUR] = { { "neon green", "magenta", "cyan", "violet", "electric blue", "amber", "red", "hot pink",
                   "acid yellow", "white", "teal", "orange" },
                 " green blue pink yellow purple black grey gray golden gold silver colourful colorful monochrome " },
};

static bool says_one_of(const char *words, const char *list) {
    char *copy = text_copy(list), *rest = copy;
    bool is_said = false;
    for (const char *word = strsep(&rest, " "); word != NULL && !is_said; word = strsep(&rest, " ")) {
        is_said = word[0] != '\0' && builtin_has(words, word);
    }
    free(copy);
    return is_said;
}

static bool says_kind(const char *words, enum kind kind) {
    bool is_said = says_one_of(words, kinds[kind].others);
    for (size_t i = 0; kinds[kind].words[i] != NULL; i++) {
        is_said = is_said || builtin_has(words, kinds[kind].words[i]);
    }
    return is_said;
}

/* A word of the kind that is not ruled out and not in the prompt; NULL when all are. */
static const char *pick(enum kind kind, const char *words, const char *ruled_out, uint64_t *random) {
    size_t n = 1; /* no kind is without words */
    while (kinds[kind].words[n] != NULL) {
        n++;
    }
    const size_t first = (size_t)(builtin_random(random) % n);
    for (size_t i = 0; i < n; i++) {
        const char *word = kinds[kind].words[(first + i) % n];
        char *own = builtin_words(word);
        const bool is_free = !builtin_shares_word(ruled_out, own) && !builtin_has(words, word) &&
                             !(kind == SKY && builtin_has(words, "night") && strcmp(word, "retro sun") == 0);
        free(own);
        if (is_free) {
            return word;
        }
    }
    return NULL;
}

static void add(char **text, const char *gap, const char *word) {
    char *longer = text_format("%s%s%s", *text, gap, word);
    free(*text);
    *text = longer;
}

/* Where there is neither ground nor sky. */
static const char elsewhere[] = " room library kitchen bedroom office cafe indoors interior inside underwater space "
                                "orbit studio cave spaceship astronaut galaxy ";

/* Two colours that differ: one for the subject's style, one for the background. */
char *builtin_neon(const struct builtin_request *request) {
    static const char *const no_words[] = { "background", "sky" };
    uint64_t random = request->seed;
    char *words = builtin_words(request->prompt), *ruled_out = builtin_ruled_out(words, request->negative);
    size_t n = strlen(request->prompt);
    while (n > 0 && strchr(" \t\r\n,.;", request->prompt[n - 1]) != NULL) {
        n--;
    }
    char *text = text_format("%.*s", (int)n, request->prompt);
    const bool is_bare = (request->directions & (1u << DIRECTION_STRONG_NEGATIVE_SPACE)) != 0 ||
                         says_one_of(words, " plain empty minimal minimalist ");
    const bool is_elsewhere = says_one_of(words, elsewhere);
    const bool has_colour = says_kind(words, COLOUR);
    const char *colour = has_colour ? NULL : pick(COLOUR, words, ruled_out, &random), *other = NULL;
    for (int tries = 0; tries < 16 && (other == NULL || (colour != NULL && strcmp(other, colour) == 0)); tries++) {
        other = pick(COLOUR, words, ruled_out, &random);
    }
    const char *style = says_kind(words, STYLE) ? NULL : pick(STYLE, words, ruled_out, &random);
    if (colour != NULL || style != NULL) {
        add(&text, ", ", colour != NULL ? colour : style);
        if (colour != NULL && style != NULL) {
            add(&text, " ", style);
        }
    }
    for (enum kind kind = GROUND; kind <= WEATHER && !is_elsewhere; kind++) {
        /* Little is in a picture that is to be empty; not each picture needs weather. */
        const bool is_left_out = (is_bare && kind != GROUND) || (kind == WEATHER && builtin_random(&random) % 3 == 0);
        const char *word = says_kind(words, kind) ? NULL : pick(kind, words, ruled_out, &random);
        if (word == NULL || is_left_out ||
            (kind >= BACKGROUND && kind <= SKY && builtin_has(ruled_out, no_words[kind - BACKGROUND]))) {
            continue;
        }
        add(&text, ", ", kind == BACKGROUND && !has_colour && other != NULL ? other : word);
        if (kind == BACKGROUND && !has_colour && other != NULL) {
            add(&text, " ", word);
        }
    }
    for (enum direction i = 0; i < N_DIRECTIONS; i++) {
        char *title = builtin_words(direction_title(i)); /* " rule of thirds " */
        title[strlen(title) - 1] = '\0';
        if ((request->directions & (1u << i)) != 0 && !builtin_has(words, title + 1)) {
            add(&text, ",", title);
        }
        free(title);
    }
    free(ruled_out);
    free(words);
    return text;
}
