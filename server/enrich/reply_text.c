/* Cleaning replies: see reply_text.h. */
#include "enrich/reply_text.h"

#include "text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const think_names[] = { "think", "thinking", "thought", "reasoning" };

/* The length of the tag "<NAME>" or "</NAME>" of one of think_names at text; 0: none. */
static size_t think_tag(const char *text, bool is_end) {
    const size_t n_mark = is_end ? 2 : 1;
    if (strncmp(text, "</", n_mark) != 0) {
        return 0;
    }
    for (size_t i = 0; i < sizeof think_names / sizeof think_names[0]; i++) {
        const size_t n = strlen(think_names[i]);
        if (strncasecmp(text + n_mark, think_names[i], n) == 0 && text[n_mark + n] == '>') {
            return n_mark + n + 1;
        }
    }
    return 0;
}

/* In place. Some models' templates open the thinking themselves, so that a reply has only its end: all before it is
 * thinking. */
static void cut_thinking(char *text) {
    char *out = text;
    bool is_thinking = false;
    for (const char *in = text; *in != '\0';) {
        const size_t n_begin = think_tag(in, false), n_end = think_tag(in, true);
        if (n_end > 0) {
            out = is_thinking ? out : text;
            is_thinking = false;
        } else if (n_begin > 0) {
            is_thinking = true;
        } else if (!is_thinking) {
            *out++ = *in;
        }
        in += n_begin + n_end > 0 ? n_begin + n_end : 1;
    }
    *out = '\0';
}

/* Characters that are never shown: controls, marks of direction, and the mark of byte order. */
static bool is_hidden(uint32_t code) {
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x200e || code == 0x200f ||
           (code >= 0x202a && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) || code == 0xfeff || code == 0x61c;
}

static bool is_blank(uint32_t code) {
    return code == ' ' || code == '\t' || code == '\n' || code == '\r' || code == 0xa0 || code == 0x2028 ||
           code == 0x2029;
}

/* In place: one space for any run of blanks, nothing hidden, no bold marks, no fences with their language. */
static void cut_marks(char *text) {
    char *out = text;
    bool is_gap = false;
    for (const char *in = text; *in != '\0';) {
        uint32_t code = 0;
        size_t n = text_read_character(in, &code);
        n = n > 0 ? n : 1;
        if (strncmp(in, "```", 3) == 0) {
            in += 3 + strspn(in + 3, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
            is_gap = true;
            continue;
        }
        if (is_blank(code)) {
            is_gap = true;
        } else if (!is_hidden(code) && !(in[0] == '*' && (in[1] == '*' || (in > text && in[-1] == '*')))) {
            if (is_gap && out > text) {
                *out++ = ' ';
            }
            is_gap = false;
            memmove(out, in, n);
            out += n;
        }
        in += n;
    }
    *out = '\0';
}

static bool begins(const char *text, const char *start) {
    return strncasecmp(text, start, strlen(start)) == 0;
}

/* What stands in front of the prompt itself: "Prompt:". Returns the rest. */
static const char *skip_label(const char *text) {
    static const char *const labels[] = { "enriched prompt:",  "enhanced prompt:", "improved prompt:", "final prompt:",
                                          "rewritten prompt:", "image prompt:",    "prompt:",          "answer:" };
    for (size_t i = 0; i < sizeof labels / sizeof labels[0]; i++) {
        if (begins(text, labels[i])) {
            text += strlen(labels[i]);
            return text + strspn(text, " ");
        }
    }
    return text;
}

/* A copy without one pair of quotes around the whole. An opening quote whose partner has not come yet goes as well. */
static char *strip_quotes(const char *text, bool is_whole) {
    static const char *const pairs[][2] = { { "\"", "\"" }, { "“", "”" }, { "'", "'" }, { "‘", "’" },
                                            { "`", "`" },   { "«", "»" }, { "„", "“" } };
    const size_t n = strlen(text);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        const size_t n_open = strlen(pairs[i][0]), n_close = strlen(pairs[i][1]);
        if (strncmp(text, pairs[i][0], n_open) != 0) {
            continue;
        }
        const bool is_closed = n >= n_open + n_close && strcmp(text + n - n_close, pairs[i][1]) == 0;
        const bool is_around = is_closed && strstr(text + n_open, pairs[i][1]) == text + n - n_close;
        if (is_around || (!is_whole && strstr(text + n_open, pairs[i][1]) == NULL)) {
            return text_format("%.*s", (int)(n - n_open - (is_closed ? n_close : 0)), text + n_open);
        }
    }
    return text_copy(text);
}

/* Cuts to the limit, after the last sentence of its second half or else after a word. */
static void limit(char *text) {
    char *end = text;
    for (int i = 0; i < REPLY_MAX_CHARACTERS && *end != '\0'; i++) {
        uint32_t code = 0;
        const size_t n = text_read_character(end, &code);
        end += n > 0 ? n : 1;
    }
    if (*end == '\0') {
        return;
    }
    char *sentence = NULL, *word = NULL;
    for (char *c = text + (end - text) / 2; c < end; c++) {
        sentence = (*c == '.' || *c == '!' || *c == '?') && c[1] == ' ' ? c + 1 : sentence;
        word = *c == ' ' ? c : word;
    }
    *(sentence != NULL ? sentence : word != NULL ? word : end) = '\0';
}

/* Of an unfinished reply: a tag, a mark or a quote that has only begun. */
static void hold_back(char *text) {
    char *tag = strrchr(text, '<');
    if (tag != NULL && strchr(tag, '>') == NULL && strlen(tag) < 16) {
        *tag = '\0';
    }
    size_t n = strlen(text);
    while (n > 0 && strchr("*` \t\r\n\"'", text[n - 1]) != NULL) {
        n--;
    }
    text[n] = '\0';
}

char *reply_clean(const char *text, bool is_whole) {
    char *clean = text_clean(text);
    if (!is_whole) {
        hold_back(clean);
    }
    cut_thinking(clean);
    cut_marks(clean);
    char *result = strip_quotes(skip_label(clean), is_whole);
    cut_marks(result); /* blanks within the quotes */
    limit(result);
    free(clean);
    return result;
}
