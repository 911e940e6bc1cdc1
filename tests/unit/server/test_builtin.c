/* The built-in enricher: the same seed gives the same prompt, the user's words stay, every direction is heard, and nothing is added that
 * speaks against what was said. */
#include "enrich/builtin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* cmocka.h needs those above. */
#include <cmocka.h>

#define N_SEEDS 400

static char *enrich(const char *prompt, unsigned directions, uint64_t seed, const char *negative) {
    const struct builtin_request request = {
        .prompt = prompt, .directions = directions, .seed = seed, .negative = negative
    };
    return builtin_enrich(&request);
}

static void same_seed_gives_same_prompt(void **state) {
    int n_different = 0;
    (void)state;
    char *last = text_copy("");
    for (uint64_t seed = 0; seed < 20; seed++) {
        char *one = enrich("a cat on a roof", 3, seed, NULL), *two = enrich("a cat on a roof", 3, seed, NULL);
        assert_string_equal(one, two);
        n_different += strcmp(one, last) != 0;
        free(last);
        free(two);
        last = one;
    }
    free(last);
    assert_true(n_different >= 18);
}

static void the_prompt_stays_in_front(void **state) {
    static const char *const prompts[] = { "a cat",         "Ünïcode “quotes” – and dashes",
                                           "ends already!", "雪の中の犬",
                                           "two\nlines",    "a \"NO RAIN\" sign" };
    (void)state;
    for (size_t i = 0; i < sizeof prompts / sizeof prompts[0]; i++) {
        for (unsigned directions = 0; directions < 64; directions++) {
            char *text = enrich(prompts[i], directions, directions, NULL);
            assert_int_equal(strncmp(text, prompts[i], strlen(prompts[i])), 0);
            assert_true(text_is_utf8(text));
            assert_true(strlen(text) > strlen(prompts[i]) + 20);
            assert_null(strstr(text, ".."));
            assert_null(strpbrk(text, "[]|"));
            free(text);
        }
    }
}

/* Also for prompts that leave a direction little room. */
static void every_direction_adds_a_sentence(void **state) {
    static const char *const prompts[] = { "a cat", "a centered symmetrical logo of a fox in the middle",
                                           "crowded market, close up, watercolor, at noon in the rain",
                                           "black and white macro photo of an ant",
                                           "underwater painting of a whale seen from above" };
    (void)state;
    for (size_t i = 0; i < sizeof prompts / sizeof prompts[0]; i++) {
        for (uint64_t seed = 0; seed < 50; seed++) {
            char *plain = enrich(prompts[i], 0, seed, NULL);
            for (enum direction direction = 0; direction < N_DIRECTIONS; direction++) {
                char *text = enrich(prompts[i], 1u << direction, seed, NULL);
                assert_string_not_equal(text, plain);
                free(text);
            }
            char *all = enrich(prompts[i], 63, seed, NULL);
            int n_sentences = 0;
            for (const char *c = all; *c != '\0'; c++) {
                n_sentences += *c == '.' && (c[1] == ' ' || c[1] == '\0');
            }
            assert_true(n_sentences >= 7); /* the prompt and six */
            free(all);
            free(plain);
        }
    }
}

/* What must not be added to a prompt, whatever the seed and the directions. */
static void nothing_speaks_against_the_prompt(void **state) {
    static const struct {
        const char *prompt;
        const char *never[12];
    } cases[] = {
        { "a lighthouse at night", { "noon", "Afternoon", "dawn", "evening", "overcast", "daylight" } },
        { "a bridge at noon", { "Moonlight", "night", "dawn", "evening", "lamplight", "Afternoon", "stars" } },
        { "a kitchen in the morning", { "sky", "horizon", "breeze", "Moonlight", "evening", "on location" } },
        { "astronaut floating in space",
          { "breeze", "dust", "sun ", "fog", "haze", "horizon", "Moonlight", "Window" } },
        { "coral reef, underwater", { "breeze", "dust", "sun ", "haze", "Moonlight", "Window", "horizon", "lamp" } },
        { "watercolor of a village", { "photograph", "lens", "brushwork", "softbox" } },
        { "pencil drawing of a horse", { "photograph", "lens", "brushwork", "softbox" } },
        { "black and white portrait of a man",
          { "teal", "amber", "colours are kept", "earth tones", "Warm highlights" } },
        { "a red car", { "teal against amber", "earth tones" } },
        { "a castle, centered", { "on one side", "left third", "right third", "off the middle", "mirrored, and yet" } },
        { "close up of an eye", { "Most of the frame", "A wide, empty area", "horizon", "straight from above" } },
        { "crowded market", { "Most of the frame", "quiet and attentive" } },
        { "a city street seen from above", { "looks up", "stands low" } },
        { "a battle between knights", { "quiet and attentive" } },
        { "child reading by candlelight", { "key light", "softbox", "A large, soft source" } },
        { "a forest without fog or wind", { "haze", "mist" } },
        { "a harbour, no rain", { "Wet surfaces" } },
        { "ein Hund im Schnee bei Nacht", { "sun", "noon", "dawn", "Window", "overcast" } },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
            char *text = enrich(cases[i].prompt, (unsigned)(seed % 64), seed, NULL);
            const char *added = text + strlen(cases[i].prompt);
            for (size_t k = 0; k < 12 && cases[i].never[k] != NULL; k++) {
                if (strstr(added, cases[i].never[k]) != NULL) {
                    fail_msg("\"%s\" got \"%s\": %s", cases[i].prompt, cases[i].never[k], text);
                }
            }
            free(text);
        }
    }
}

static void sentences_that_speak_against_each_other_are_not_joined(void **state) {
    static const char *const pairs[][2] = { { "Moonlight", "Afternoon" },
                                            { "Window light", "stretch of sky" },
                                            { "left third", "right third" },
                                            { "looks up", "straight from above" },
                                            { "softbox", "on location" } };
    (void)state;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        char *text = enrich("a statue", (unsigned)(seed % 64), seed, NULL);
        for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
            assert_false(strstr(text, pairs[i][0]) != NULL && strstr(text, pairs[i][1]) != NULL);
        }
        free(text);
    }
}

static void words_of_the_negative_prompt_are_not_added(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        char *text = enrich("a tower on a hill", (unsigned)(seed % 64), seed, "shadows, breeze, lens, sky");
        assert_null(strstr(text, "shadow"));
        assert_null(strstr(text, "breeze"));
        assert_null(strstr(text, " lens"));
        assert_null(strstr(text, " sky"));
        free(text);
    }
}

static void an_instruction_of_one_s_own_is_taken_as_it_is(void **state) {
    struct builtin_request request = { .prompt = "a cat", .directions = 1u << DIRECTION_UNIQUE };
    (void)state;
    request.instructions[DIRECTION_UNIQUE] = "  upside down \n";
    request.instructions[DIRECTION_CINEMATIC] = "not chosen";
    char *text = builtin_enrich(&request);
    assert_non_null(strstr(text, " upside down. "));
    assert_null(strstr(text, "not chosen"));
    free(text);
}

static void neon_gets_one_word_of_each_kind(void **state) {
    static const char *const weather[] = { "rain", "snow", "fog" };
    struct builtin_request request = { .style = CAPTION_NEON };
    (void)state;
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        request.seed = seed;
        request.directions = (unsigned)(seed % 64);
        request.prompt = "violet robot hologram at night, snow";
        char *text = builtin_enrich(&request), *words = builtin_words(text);
        assert_int_equal(strncmp(text, request.prompt, strlen(request.prompt)), 0);
        int n = 0;
        for (size_t i = 0; i < 3; i++) {
            n += builtin_has(words, weather[i]);
        }
        assert_int_equal(n, 1);
        assert_false(builtin_has(words, "retro sun"));
        assert_false(builtin_has(words, "statue"));
        assert_int_equal(builtin_has(words, "rule of thirds"),
                         (request.directions & (1u << DIRECTION_RULE_OF_THIRDS)) != 0);
        free(words);
        free(text);
        request.prompt = "a cat in a library";
        text = builtin_enrich(&request);
        assert_null(strstr(text, "street"));
        assert_null(strstr(text, "skyline"));
        free(text);
    }
}

static void the_style_follows_the_model(void **state) {
    (void)state;
    assert_int_equal(caption_style_of("neon"), CAPTION_NEON);
    assert_int_equal(caption_style_of("models/Neon"), CAPTION_NEON);
    assert_int_equal(caption_style_of("black-forest-labs/FLUX.2-klein-4B"), CAPTION_PROSE);
    assert_int_equal(caption_style_of(NULL), CAPTION_PROSE);
    assert_int_equal(caption_style_of(""), CAPTION_PROSE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_gives_same_prompt),
        cmocka_unit_test(the_prompt_stays_in_front),
        cmocka_unit_test(every_direction_adds_a_sentence),
        cmocka_unit_test(nothing_speaks_against_the_prompt),
        cmocka_unit_test(sentences_that_speak_against_each_other_are_not_joined),
        cmocka_unit_test(words_of_the_negative_prompt_are_not_added),
        cmocka_unit_test(an_instruction_of_one_s_own_is_taken_as_it_is),
        cmocka_unit_test(neon_gets_one_word_of_each_kind),
        cmocka_unit_test(the_style_follows_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
