/* sixel: a picture as DEC's sixel graphics: 256 colours chosen for the picture by median cut, errors spread to the neighbours. */
#ifndef CLI_SIXEL_H
#define CLI_SIXEL_H

#include "cyberimage.h"

#include <stdio.h>

/* Writes the escape sequence, in the picture's own size. Errors of out stay in its error flag. */
void sixel_write(FILE *out, const struct cyi_image *image);

#endif
