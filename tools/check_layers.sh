#!/bin/sh
# Includes may only point one way (ARCHITECTURE.md): pipeline → models, sample, text → nn → ops → backend.h ← backends; io and core
# below all of them; cli sees the public header and itself; the server has an order of its own. Prints each line that breaks the rule; the status is 1 then.
set -u
cd "$(dirname "$0")/.." || exit 1
broken=0

# check FOLDER FORBIDDEN…: files below FOLDER include nothing of the forbidden folders.
check() {
    folder=$1
    shift
    for other in "$@"; do
        found=$(git grep -nE "^#include \"$other" -- "$folder") && { echo "$found" | sed "s|\$| (not allowed in $folder)|"; broken=1; }
    done
}

upper="pipeline/ models/ nn/ sample/"
# shellcheck disable=SC2086
{
    check engine/core $upper text/ ops/ backend/ io/ cli/
    check engine/io $upper text/ ops/ backend/
    check engine/text $upper ops/ backend/
    check engine/sample pipeline/ models/ nn/ text/ ops/ backend/ io/
    check engine/ops $upper text/ io/
    check engine/backend $upper text/ io/
    check engine/nn pipeline/ models/ sample/ text/ backend/
    check engine/models pipeline/ sample/ text/ backend/
    check common $upper text/ ops/ backend/ io/ core/ cli/ server/ worker/
    check worker $upper text/ ops/ backend/ io/ core/ cli/ server/
    # The studio: base below store below http; parts know each other only by the few headers that are meant for it.
    check server/base store/ http/ security/ gallery/ jobs/ enrich/ routes/ studio.h
    check server/store http/ security/ gallery/ jobs/ enrich/ routes/ studio.h
    check server/http security/ gallery/ jobs/ enrich/ routes/ studio.h
    check server/enrich gallery/ jobs/ routes/
    check server/gallery jobs/ enrich/ routes/
    check server/security gallery/ jobs/ enrich/ routes/
    check server/jobs enrich/ routes/
    check cli pipeline/ models/ nn/ sample/ text/ ops/ backend/ io/ core/
}
# Models know operations, not who computes them.
found=$(git grep -nEi '\b(onednn|dnnl|cuda)\b' -- engine/models engine/nn) && { echo "$found" | sed 's|$| (names a backend)|'; broken=1; }
# The engine never prints, never exits, and has one place for memory.
found=$(git grep -nE '\b(printf|puts|exit|abort)\(' -- 'engine/*.c') && { echo "$found" | sed 's|$| (not in the engine)|'; broken=1; }
found=$(git grep -nE '(^|[^A-Za-z_>.])(malloc|calloc|realloc|free)\(' -- 'engine/*.c' ':!engine/core/memory.c') && { echo "$found" | sed 's|$| (not outside core/memory.c)|'; broken=1; }
[ $broken -eq 0 ] && echo "layers: as they should be"
exit $broken
