/* reply_text: what a language model answered becomes a prompt: text only, one paragraph. */
#ifndef SERVER_ENRICH_REPLY_TEXT_H
#define SERVER_ENRICH_REPLY_TEXT_H

#include <stdbool.h>

#define REPLY_MAX_CHARACTERS 4000

/* A new string in UTF-8: without parts in <think>…</think>, control characters, bidirectional overrides, code fences,
 * bold marks and the quotes or the label ("Prompt:") around the whole; blanks and line ends become one space; at most
 * REPLY_MAX_CHARACTERS, ended after a sentence or a word. is_whole: no more comes; else what might still turn into one
 * of those things is left away at the end, so that what was shown of an unfinished reply is a beginning of the finished
 * one, but for rare cases. */
char *reply_clean(const char *text, bool is_whole);

#endif
