#!/bin/sh
# What clang-format and the eye of a reviewer would find. Prints each place; the status is 1 when there is one.
set -u
cd "$(dirname "$0")/.." || exit 1
broken=0
report() { echo "$1" | sed "s|^|$2: |"; broken=1; }

if command -v clang-format-14 >/dev/null 2>&1; then
    unformatted=$(git ls-files '*.c' '*.h' | xargs clang-format-14 --dry-run 2>&1 | grep 'warning:' | cut -d: -f1 | sort | uniq -c)
    [ -n "$unformatted" ] && report "$unformatted" "not formatted (make format)"
else
    echo "style: clang-format-14 is not here, formatting is not checked"
fi
found=$(git grep -nE '(^|[^:"])//( |$)' -- '*.c' '*.h') && report "$found" "a // comment"
found=$(git grep -nE '[ 	]+$' -- '*.c' '*.h' '*.py' '*.sh' '*.build' Makefile) && report "$found" "blanks at the end"
found=$(git grep -nE '^.{141,}$' -- '*.c' '*.h') && report "$found" "a line over 140 columns"
found=$(git grep -nEi '\b(TODO|FIXME|XXX)\b' -- '*.c' '*.h' '*.py' '*.sh' ':!tools/check_style.sh') && report "$found" "unfinished"
found=$(git grep -lE '(^|[^A-Za-z0-9_.])/(home|root|Users)/[a-z]' -- ':!tools/check_style.sh') && report "$found" "names a path of one machine"
found=$(git ls-files -z | xargs -0 du -k | awk '$1 > 4096 && $2 !~ "^models/neon/" { print $2 }')
[ -n "$found" ] && report "$found" "larger than 4 MiB"
for file in $(git ls-files '*.c' '*.h'); do
    head -c 2 "$file" | grep -q '/\*' || report "$file" "does not begin by saying what it is"
done
[ $broken -eq 0 ] && echo "style: as it should be"
exit $broken
