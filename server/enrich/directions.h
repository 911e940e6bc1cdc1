/* directions: the ways in which a prompt may be led, and how an image model likes its captions. */
#ifndef SERVER_ENRICH_DIRECTIONS_H
#define SERVER_ENRICH_DIRECTIONS_H

#include "store/db.h"

enum direction {
    DIRECTION_CINEMATIC,
    DIRECTION_ASYMMETRICAL,
    DIRECTION_UNIQUE,
    DIRECTION_RULE_OF_THIRDS,
    DIRECTION_STRONG_NEGATIVE_SPACE,
    DIRECTION_PRODUCTION_PHOTOGRAPHY,
    N_DIRECTIONS
};

#define DIRECTION_MAX_BYTES 2000 /* of an instruction */

enum caption_style {
    CAPTION_PROSE, /* sentences: every FLUX */
    CAPTION_NEON,  /* the few words of the bundled model */
};

const char *direction_name(enum direction direction);        /* "rule_of_thirds" */
const char *direction_title(enum direction direction);       /* "Rule of thirds" */
const char *direction_instruction(enum direction direction); /* the text that it has from the start */
/* N_DIRECTIONS when there is none of that name. */
enum direction direction_find(const char *name);

/* By the image model's name or path; NULL: prose. */
enum caption_style caption_style_of(const char *image_model);

/* Checks an object {NAME: text}, or null for texts where may_be_null. Errors: INVALID (names the direction). */
enum problem_code directions_check(const json_t *texts, const char *field, bool may_be_null, struct problem *problem);

/* What a language model is told: what makes a good prompt, the directions with their instructions, what must not
 * appear, and which of how many versions this is. A new string. */
char *directions_brief(unsigned chosen, const char *const instructions[N_DIRECTIONS], enum caption_style style,
                       const char *negative, int version, int n_versions);

#endif
