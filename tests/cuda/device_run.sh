#!/bin/bash
# Runs the CUDA backend's checks and measurements on a machine with a card: device_run.sh [BUNDLE] STAGE…
#
# BUNDLE is a folder that tools/cuda_bundle.sh wrote (default: where this script lies). It is started in the root of a repository of the
# same commit, which has models/neon and tests/fixtures. One line a result goes to standard output, everything to $OUT/log.txt. A stage that
# fails does not stop the others; the status is the number of results that are not ok. Every result has its own time limit, and all together
# have SECONDS_IN_ALL (default 540): what comes after that is left out. "all" stands for all stages, in this order:
#   env       the card, the libraries, what the program says of them
#   check     tests of kernels, attention, products, convolutions, operations
#   goldens   whole pictures against the reference implementation, and the bundled model against its recorded pictures
#   kernels   rates of kernels, products and attention
#   neon      the bundled model in every precision: time, and how far it is from f32
#   klein     a FLUX.2 klein 4B of random weights: 512² and 1024², bf16, fp8, int8
#   cold      from the start of a process to its first picture
#   limits    klein at 1024² within 24, 16, 12 and 8 GiB of the card
#   flat      1000 pictures of the bundled model: memory must not grow
#   sanitizer compute-sanitizer's memcheck and racecheck on one golden
set -u
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -gt 0 ] && [ -d "$1" ]; then
    here=$(cd "$1" && pwd)
    shift
fi
unpacked=""
if [ -f "$here/bundle.tar.xz" ]; then
    unpacked=$(mktemp -d)
    tar -xf "$here/bundle.tar.xz" -C "$unpacked" 2>/dev/null || python3 -m tarfile -e "$here/bundle.tar.xz" "$unpacked" || exit 1
    here=$unpacked
fi
OUT=${OUT:-$PWD/build-device-out}
mkdir -p "$OUT"
log=$OUT/log.txt
output=$(mktemp) # what the last command printed
bin=$here/bin
in_all=${SECONDS_IN_ALL:-540}
n_bad=0
model_folder=""
model_job=""

# NVIDIA's libraries: inside of Python's packages, or where the system has them.
packages=$(python3 -c 'import importlib.util as u; s = u.find_spec("nvidia"); print(*(s.submodule_search_locations if s else []))' 2>/dev/null)
libraries=$here/lib
for package in $packages; do
    for folder in "$package"/cu13/lib "$package"/cudnn/lib "$package"/*/lib; do
        [ -d "$folder" ] && libraries=$libraries:$folder
    done
done
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export CYI_FIXTURES=$PWD/tests/fixtures CYI_SOURCE_ROOT=$PWD CYBERIMAGE_PLUGINS=$bin

say() { printf '%s\n' "$*" | tee -a "$log"; }

# result NAME SECONDS COMMAND…: runs it, keeps what it prints in the log and in $output, says how it went.
result() {
    local name=$1 limit=$2 start=$SECONDS status left=$((in_all - SECONDS))
    shift 2
    : >"$output"
    if [ $left -lt 5 ]; then
        say "LATE $name: no time is left for it"
        n_bad=$((n_bad + 1))
        return 1
    fi
    [ "$limit" -le $left ] || limit=$left
    printf '\n==== %s: %s\n' "$name" "$*" >>"$log"
    timeout -k 2 "$limit" "$@" >"$output" 2>&1
    status=$?
    cat "$output" >>"$log"
    # The bundle has no oneDNN, but a card is there: nothing else may be skipped.
    if [ $status -eq 0 ] && grep -a '^\[  SKIPPED' "$output" | grep -qvE 'onednn|listed below'; then
        status=skipped
    fi
    case $status in
        0) say "ok   $name ($((SECONDS - start)) s)" ;;
        124 | 137) say "LATE $name: stopped after $limit s" ;;
        *) say "BAD  $name: $status ($((SECONDS - start)) s)" ;;
    esac
    [ "$status" = 0 ] && return 0
    n_bad=$((n_bad + 1))
    grep -aE 'ERROR|FAILED|SKIPPED|rror:' "$output" | grep -avE 'onednn|listed below|TEST\(S\)' | sort -u | head -10 | cut -c1-200 | sed 's/^/       /'
    tail -n 2 "$output" | cut -c1-200 | sed 's/^/       /'
    return 1
}

# The last lines of what the command printed are results themselves.
show() {
    tail -n "$1" "$output" | cut -c1-220 | sed 's/^/       /'
}

# each_program SECONDS LINES PATTERN…: programs of the bundle; LINES last lines of each are results. None at all is a fault of the bundle.
each_program() {
    local limit=$1 lines=$2 pattern program found=0
    shift 2
    for pattern in "$@"; do
        for program in "$bin"/$pattern; do
            [ -x "$program" ] || continue
            found=1
            result "$(basename "$program")" "$limit" "$program"
            [ "$lines" -gt 0 ] && show "$lines"
        done
    done
    [ $found = 1 ] || { say "BAD  no program $*"; n_bad=$((n_bad + 1)); }
}

picture() { # NAME SECONDS OPTIONS…
    local name=$1 limit=$2
    shift 2
    result "$name" "$limit" "$bin/bench_picture" --backend cuda "$@" && show 6
}

# ---- klein: written in the background as soon as some stage will need it ----

start_klein() {
    local folder
    model_folder=$(mktemp -d)
    # Memory in large pages is written several times as fast.
    if ! mount -t tmpfs -o huge=always,size=20g none "$model_folder" 2>/dev/null; then
        rmdir "$model_folder"
        folder=/dev/shm
        [ "$(df --output=avail -k $folder | tail -n 1)" -gt 17000000 ] || folder=${TMPDIR:-/tmp}
        model_folder=$(mktemp -d -p "$folder")
    fi
    "$bin/random_model" --tokenizer "$CYI_FIXTURES/golden/flux2-klein/tokenizer" "$model_folder/klein" >"$OUT/random_model.txt" 2>&1 &
    model_job=$!
}

wait_for_klein() {
    [ -n "$model_job" ] || return 0
    local start=$SECONDS
    wait "$model_job" || { say "BAD  random_model: $(tail -n 1 "$OUT/random_model.txt")"; n_bad=$((n_bad + 1)); }
    model_job=""
    say "ok   random_model (waited for $((SECONDS - start)) s, $(du -sm "$model_folder" | cut -f 1) MiB)"
}

clean_up() {
    rm -rf "$output" "$unpacked"
    [ -n "$model_folder" ] || return 0
    [ -z "$model_job" ] || kill "$model_job" 2>/dev/null
    umount "$model_folder" 2>/dev/null
    rm -rf "$model_folder"
}
trap clean_up EXIT

# ---- Stages ----

stage_env() {
    result nvidia-smi 10 nvidia-smi --query-gpu=name,driver_version,memory.total,memory.free,compute_cap,pcie.link.gen.current --format=csv,noheader
    show 1
    result doctor 20 "$bin/cyberimage" doctor && grep -aiE 'engine|cuda|card' "$output" | head -6 | sed 's/^/       /'
    say "       $(nproc) cores, $(awk '/MemTotal/ { printf "%d GiB", $2 / 1048576 }' /proc/meminfo)"
    df -h /dev/shm "$PWD" >>"$log" 2>&1
}

stage_check() {
    each_program 60 0 test_flash 'test_ops_*'
}

stage_goldens() {
    CYI_TEST_FILTER='*_cuda_*' result goldens 60 "$bin/test_pipeline"
    CYI_TEST_FILTER='*_cuda_*' result recorded-neon 30 "$bin/test_neon"
    grep -a ' dB ' "$output" | sed 's/^/       /'
}

stage_kernels() {
    each_program 60 40 bench_gpu bench_flash
}

stage_neon() {
    picture neon-f32 20 --precision f32 --count 9 --output "$OUT/neon-f32.png" models/neon
    for precision in bf16 fp8 int8; do
        picture neon-$precision 20 --precision $precision --count 9 --compare "$OUT/neon-f32.png" models/neon
    done
}

stage_klein() {
    wait_for_klein
    picture klein-bf16 60 --precision bf16 --size 512,1024 --steps 4 --count 5 --output "$OUT/klein-bf16.png" "$model_folder/klein"
    for precision in fp8 int8; do
        picture klein-$precision 45 --precision $precision --size 512,1024 --steps 4 --count 5 --compare "$OUT/klein-bf16.png" "$model_folder/klein"
    done
}

stage_cold() {
    wait_for_klein
    picture cold-neon 15 --count 1 --warm-up 0 models/neon
    picture cold-klein 30 --precision bf16 --size 1024 --steps 4 --count 1 --warm-up 0 "$model_folder/klein"
}

stage_limits() {
    wait_for_klein
    for gib in 24 16 12 8; do
        picture limit-$gib 45 --precision bf16 --size 1024 --steps 4 --count 2 --device-mib $((gib * 1024)) "$model_folder/klein"
    done
}

stage_flat() {
    local memory
    memory=$(mktemp)
    (while sleep 2; do nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits; done >"$memory") &
    local sampler=$!
    picture flat 90 --precision bf16 --steps 4 --count 1000 --warm-up 20 models/neon
    kill $sampler
    say "       the card's memory in use, MiB: $(sort -n "$memory" | sed -n '1p;$p' | tr '\n' ' ') (least, most)"
}

stage_sanitizer() {
    local tool=compute-sanitizer
    command -v $tool >/dev/null || tool=$(find /usr/local/cuda*/ /opt/nvidia -name compute-sanitizer -type f 2>/dev/null | head -n 1)
    export CYI_TEST_FILTER='*flux2-klein_square_cuda_bf16'
    result memcheck 75 "${tool:-compute-sanitizer}" --tool memcheck --error-exitcode 9 "$bin/test_pipeline"
    result racecheck 75 "${tool:-compute-sanitizer}" --tool racecheck --error-exitcode 9 "$bin/test_pipeline"
    unset CYI_TEST_FILTER
}

stages=${*:-all}
[ "$stages" = all ] && stages="env check goldens kernels neon klein cold limits flat sanitizer"
: >"$log"
say "version $(cat "$here/version" 2>/dev/null)"
case " $stages " in
    *" klein "* | *" cold "* | *" limits "*) start_klein ;;
esac
for stage in $stages; do
    start=$SECONDS
    "stage_$stage" || true
    say "---- $stage: $((SECONDS - start)) s"
done
say "$n_bad not ok, $SECONDS s in all"
exit $n_bad
