#!/bin/sh
# Runs the benchmarks of a build folder: tools/run_bench.sh BUILD [MODEL]. Without a model only the bundled one makes pictures.
set -eu
build=$1
model=${2:-}
failed=0
"$build/tests/bench/bench_tokenizer" tests/fixtures/golden/tokenizer-qwen/tokenizer.json.xz || failed=1
if [ -x "$build/tests/bench/bench_ops" ]; then
    "$build/tests/bench/bench_ops" || failed=1
fi
"$build/cyberimage" bench --model models/neon
python3 tests/bench/bench_server.py "$build/cyberimage" || failed=1
if [ -n "$model" ]; then
    for size in 256 512; do
        "$build/tests/bench/bench_model" "$model" $size || failed=1
    done
fi
exit $failed
