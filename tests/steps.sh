# The longer parts of ./test, as functions.

format_check() {
  git ls-files -- '*.cc' '*.h' '*.cu' '*.cuh' | grep -v unicode_tables |
    xargs -r clang-format-14 --dry-run --Werror
}

# sanitizer_tests PRESET: the same tests under a sanitizer; tsan runs what has threads. The golden
# suite computes the same code many times over and is left to the release build.
sanitizer_tests() {
  local preset=$1 runner=()
  # g++ 12's thread sanitizer cannot start where the kernel randomises more than 28 bits.
  if [[ $preset == tsan && $(sysctl -n vm.mmap_rnd_bits 2>/dev/null || echo 28) -gt 28 ]]; then
    runner=(setarch "$(uname -m)" -R)
  fi
  if [[ $preset == tsan ]]; then
    build_preset tsan test_base test_engine test_http test_serve test_model &&
      "${runner[@]}" ctest --test-dir build/tsan --output-on-failure \
        -R '^(base|engine|http|serve|model)$'
  else
    build_preset asan &&
      ctest --test-dir build/asan --output-on-failure -E '^golden$' &&
      python3 tests/e2e/run_e2e.py --binary build/asan/strata
  fi
}

tidy() {
  git ls-files -- 'src/*.cc' | grep -v -e unicode_tables -e '_avx' -e kernels/cuda |
    xargs -r -P "$(build_jobs)" -n 4 clang-tidy-19 -p build/dev --quiet --warnings-as-errors='*' \
      --extra-arg=-Wno-deprecated-declarations 2>/dev/null
}

# cuda_compile: the CUDA backend for one kind of card, warnings as errors; the program it makes must
# start where there is no driver.
cuda_compile() {
  cmake -S . -B build/cuda -G Ninja -DCMAKE_BUILD_TYPE=Release -DSTRATA_CUDA=ON \
    -DSTRATA_CUDA_ARCHS=90a -DSTRATA_TESTS=OFF >/dev/null &&
    ninja -C build/cuda -j "$(build_jobs)" strata &&
    build/cuda/strata plan >/dev/null
}

# More than a million random steps of the engine, its integrity checked after each; ten thousand
# cut streams.
long_counts() {
  STRATA_LONG_TESTS=1 build/dev/tests/test_engine --gtest_brief=1 --gtest_filter='*Walk*:*Cut*'
}

# fuzz_all SECONDS: each target that long, on its stored corpus and beyond.
fuzz_all() {
  local seconds=$1 target
  build_preset fuzz tests/fuzz/all || return 1
  local targets=(build/fuzz/tests/fuzz/fuzz_*)
  printf '%s\n' "${targets[@]}" | xargs -P "$(build_jobs)" -I{} bash -c '
    name=$(basename {}); corpus=$(mktemp -d)
    cp -r tests/fuzz/corpus/${name#fuzz_}/. "$corpus" 2>/dev/null || true
    {} -max_total_time='"$seconds"' -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 \
      "$corpus" >/tmp/strata-$name.log 2>&1 || { tail -n 40 /tmp/strata-$name.log; exit 255; }
    echo "$name: $(grep -o "stat::number_of_executed_units.*" /tmp/strata-$name.log)"
    rm -rf "$corpus"'
}

tokenizer_conformance() {
  (cd tests/conformance && npm ci --silent --no-audit --no-fund) &&
    ninja -C build/dev tokenizer_driver &&
    node tests/conformance/tokenizer.mjs --driver build/dev/tests/conformance/tokenizer_driver
}

official_client() {
  (cd tests/e2e && npm ci --silent --no-audit --no-fund) &&
    python3 tests/e2e/run_e2e.py --binary build/dev/strata --official-client
}

prometheus_scrape() {
  python3 tests/e2e/run_e2e.py --binary build/dev/strata --prometheus
}

page_tests() {
  node --test tests/web/page_test.mjs
}

# Counts of the load programs: nothing leaks, every stream ends. Their times are told elsewhere.
load_counts() {
  local program
  for program in cut drain; do
    bench/serving/$program.py --binary build/dev/strata --small || return 1
  done
  bench/serving/soak.py --binary build/dev/strata --small --seconds 120
}
