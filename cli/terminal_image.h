/* terminal_image: a picture in the terminal, by whatever the terminal understands: kitty's graphics protocol, iTerm2's inline
 * images, sixel, or else half blocks of text in 24-bit colours. */
#ifndef CLI_TERMINAL_IMAGE_H
#define CLI_TERMINAL_IMAGE_H

#include "cyberimage.h"

#include <stdio.h>

/* "kitty", "iterm2", "sixel" or "blocks", by the environment (TERM, TERM_PROGRAM, …). Nothing is asked of the terminal. */
const char *terminal_image_detect(void);

/* Draws the picture at the cursor, at most as wide and high as the terminal, and ends the line.
 *   protocol: one of the names above; NULL: what terminal_image_detect says
 * Errors: ARGUMENT (unknown protocol), IO, MEMORY. */
enum cyi_status terminal_image_show(FILE *out, struct cyi_engine *engine, const struct cyi_image *image,
                                    const char *protocol, struct cyi_error *err);

#endif
