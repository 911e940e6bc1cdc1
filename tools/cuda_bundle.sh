#!/bin/sh
# Collects what a machine with a card, but without this one's packages and sources built, needs to run the CUDA backend's checks:
#   tools/cuda_bundle.sh OUTDIR [MESON OPTIONS…]
# Builds into build-bundle, then writes OUTDIR/device_run.sh and OUTDIR/bundle.tar.xz: bin (the program, the plug-in, tests, benchmarks) and
# lib (their shared libraries, less the C library and NVIDIA's own). The bundled model and the fixtures are not in it: device_run.sh takes
# them from the repository that it is started in. The options say where CUDA is and for which generation to build, for example
# -Dcuda=enabled -Dgpu_archs=90 -Dgpu_include=FOLDER -Dgpu_lib=FOLDER.
set -eu
[ $# -ge 1 ] || { sed -n '2,8s/^# *//p' "$0"; exit 2; }
outdir=$1
shift
case $outdir in /*) ;; *) outdir=$PWD/$outdir ;; esac
cd "$(dirname "$0")/.."
build=build-bundle

# Without oneDNN: its library is three times as large as all the rest, and the card is what is to be measured.
if [ -f $build/build.ninja ]; then
    [ $# -eq 0 ] || meson configure $build "$@" >/dev/null
else
    meson setup $build -Dbuildtype=release -Dtests=true -Donednn=disabled "$@" >/dev/null ||
        { tail -n 5 $build/meson-logs/meson-log.txt; exit 1; }
fi
programs=$(ninja -C $build -t targets all | sed -nE 's/^(tests\/(bench|cuda)\/[^:]*): (c|cpp)_LINKER$/\1/p')
# shellcheck disable=SC2086 # a list of words
ninja -C $build --quiet all $programs

rm -rf "$outdir"
mkdir -p "$outdir"
content=$(mktemp -d)
trap 'rm -rf "$content"' EXIT
mkdir "$content/bin" "$content/lib"
plugin=$build/libcyberimage-cuda.so
[ -f "$plugin" ] || { echo "the build has no libcyberimage-cuda.so" >&2; exit 1; }
tests=$(find $build/tests -type f -perm -100 \( -path '*/tests/cuda/*' -o -path '*/tests/bench/*' -o \
    -name 'test_ops_*' -o -name test_pipeline -o -name test_neon \) ! -name '*.so' ! -path '*fake_cuda*' ! -path '*.p/*')
for file in $build/cyberimage $plugin $tests; do
    strip -o "$content/bin/$(basename "$file")" "$file"
    chmod +x "$content/bin/$(basename "$file")"
done
for file in "$content"/bin/*; do
    ldd "$file" | awk '$2 == "=>" && $3 ~ "^/" { print $3 }'
done | sort -u | while read -r library; do
    case $(basename "$library") in
        libc.so* | libm.so* | libdl.so* | libpthread.so* | librt.so* | libstdc++.so* | libgcc_s.so*) ;;
        libcuda*.so* | libcublas*.so* | libcudnn*.so* | libnv*.so*) ;;
        *) strip -o "$content/lib/$(basename "$library")" "$library" ;;
    esac
done
git describe --always --dirty >"$content/version"
# Programs that carry the same kernels lie within one window.
tar -C "$content" -c . | xz -T 1 --lzma2=preset=6,dict=256MiB >"$outdir/bundle.tar.xz"
cp tests/cuda/device_run.sh "$outdir/"
du -sk "$content" "$outdir" | awk '{ printf "%.1f MiB%s", $1 / 1024, NR == 1 ? ", packed " : "\n" }'
