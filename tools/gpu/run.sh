#!/usr/bin/env bash
# Runs on a machine with a card, in a checkout with .gpu/ made by tools/gpu/build.sh. Every part has
# a time limit; the first three and `bench` together stay under ten minutes. A table of the results
# comes last, with the SM clock beside each; full logs go to $OUT (default: .gpu/out).
#
#   tools/gpu/run.sh                        stages goldens memcheck bench
#   tools/gpu/run.sh stages goldens         only these
#
# stages, goldens  tests of every path that the build has code for
# paths            the same from portable code of older cards (tools/gpu/build.sh paths)
# memcheck racecheck initcheck synccheck
#                  compute-sanitizer, one process a test, each with a time limit of its own
# bench            `strata bench` of the 20b's shape with random weights
# agreement        KL divergence of int8 and of tensor cores on the embedded model
# flat             card memory while a server generates
#
# JOBS: processes side by side (default 8). LIMIT: seconds of one sanitised test (default 60).
# TESTS: a gtest filter, the sanitised tests instead of each tool's own.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
out=${OUT:-$PWD/.gpu/out}
mkdir -p "$out"
jobs=${JOBS:-8}
limit=${LIMIT:-60}
parts=("$@")
((${#parts[@]})) || parts=(stages goldens memcheck bench)
export LD_LIBRARY_PATH=$PWD/.gpu/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
ln -sfn ../models .gpu/models  # where .gpu/strata looks for the embedded model
find .gpu -type f \( -name strata -o -name 'test_*' -o -name 'bench_*' \) -exec chmod +x {} +
source_dir=$(<.gpu/source_dir)
if [[ ! -e $source_dir ]]; then
  mkdir -p "$(dirname "$source_dir")" && ln -s "$PWD" "$source_dir"
fi

clocks=$out/clocks.csv
: >"$clocks"
python3 tools/gpu/clocks.py sample "$clocks" 2>/dev/null &
sampler=$!
trap 'kill "$sampler" 2>/dev/null' EXIT
mark() { wc -l <"$clocks"; }
clock_since() { python3 tools/gpu/clocks.py since "$clocks" "$1"; }

summary=()
# note NAME CODE SECONDS MARK WORDS: one line of the table.
note() {
  summary+=("$(printf '%-22s exit %-4s %4d s  %s; %s' "$1" "$2" "$3" "$5" "$(clock_since "$4")")")
}

# part NAME SECONDS COMMAND...: the output in $out/NAME.log.
part() {
  local name=$1 limit=$2 begin=$SECONDS at code
  shift 2
  echo "== $name"
  at=$(mark)
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  code=$?
  note "$name" "$code" "$((SECONDS - begin))" "$at" "$([[ $code == 124 ]] && echo 'out of time')"
  return "$code"
}

# tests NAME SECONDS PROGRAM FILTER: its tests shared among $jobs processes, logs in $out/NAME.*.log.
tests() {
  local name=$1 seconds=$2 begin=$SECONDS at code=0 pids=() i each
  echo "== $name"
  at=$(mark)
  rm -f "$out/$name".*.log
  for ((i = 0; i < jobs; ++i)); do
    GTEST_TOTAL_SHARDS=$jobs GTEST_SHARD_INDEX=$i timeout "$seconds" "$3" --gtest_filter="$4" \
      >"$out/$name.$i.log" 2>&1 &
    pids+=($!)
  done
  for each in "${pids[@]}"; do wait "$each" || code=$?; done
  grep -hE '^\[  FAILED  \] .*\(|bug:|the card failed' "$out/$name".*.log | sort -u | cut -c1-200
  note "$name" "$code" "$((SECONDS - begin))" "$at" "$(count "$out/$name" OK) passed, $(
    count "$out/$name" SKIPPED) skipped, $(count "$out/$name" FAILED) failed"
}
count() { cat "$1".*.log | grep -cE "^\[ +$2 +\] .*\([0-9]+ ms"; }

# sanitised TOOL TEST: how a test ended, in a line.
sanitised() {
  local log code words begin=$SECONDS
  log=$out/$1/$(tr -c 'A-Za-z0-9\n' _ <<<"$2").log
  # Kernels are instrumented as they are loaded: not those that never run.
  CUDA_MODULE_LOADING=LAZY timeout "$limit" compute-sanitizer --tool "$1" --error-exitcode 9 \
    .gpu/test_kernels --gtest_filter="$2" >"$log" 2>&1
  code=$?
  words=$(grep -hoE '(ERROR|RACECHECK) SUMMARY.*' "$log" | tail -n 1)
  case $code in
    0) if grep -q '^\[  SKIPPED ' "$log"; then words=skipped; else words="clean ($words)"; fi ;;
    124) words='out of time' ;;
    *) words="exit $code ($words)" ;;
  esac
  printf '%-10s %-72s %4d s  %s\n' "$1" "$2" "$((SECONDS - begin))" "$words"
}
export out limit
export -f sanitised

# sanitiser TOOL FILTER
sanitiser() {
  local begin=$SECONDS at code=0
  echo "== $1"
  at=$(mark)
  rm -rf "${out:?}/$1" && mkdir -p "$out/$1"
  .gpu/test_kernels --gtest_list_tests --gtest_filter="${TESTS:-$2}" 2>/dev/null |
    awk '/^[^ ].*\./ { suite = $1 } /^  / { print suite $1 }' |
    xargs -P "$jobs" -I{} bash -c 'sanitised "$@"' _ "$1" {} | tee "$out/$1.log" ||
    code=$?
  grep -qE 's  exit ' "$out/$1.log" && code=9
  note "$1" "$code" "$((SECONDS - begin))" "$at" "$(grep -c 's  clean' "$out/$1.log") clean, $(
    grep -c 's  out of time' "$out/$1.log") out of time, $(grep -c 's  skipped' "$out/$1.log") skipped, $(
    grep -c 's  exit ' "$out/$1.log") with errors"
}

# Loads the model once for each shape. Lines of JSON go to $out/bench.jsonl.
bench() {
  local shape at figures
  : >"$out/bench.jsonl"
  for shape in "--prompt-tokens 16 --dense-dtype bf16" "--prompt-tokens 16 --dense-dtype int8" \
    "--prompt-tokens 16 --dense-dtype int8 --cuda-path generic80" \
    "--prompt-tokens 16 --dense-dtype int8 --deterministic" \
    "--prompt-tokens 16 --dense-dtype int8 --context-tokens 65536 --output-tokens 64" \
    "--prompt-tokens 1024 --dense-dtype int8 --batch 8" \
    "--prompt-tokens 1024 --dense-dtype int8 --batch 32" \
    "--prompt-tokens 1024 --dense-dtype int8 --batch 64" "--prompt-tokens 512 --output-tokens 4" \
    "--prompt-tokens 2048 --output-tokens 4" "--prompt-tokens 8192 --output-tokens 4"; do
    at=$(mark)
    # shellcheck disable=SC2086
    .gpu/strata bench --load-format dummy:20b --backend cuda --max-num-batched-tokens 2048 \
      --output-tokens 96 $shape --json >>"$out/bench.jsonl" || return 1
    figures=$(tail -n 1 "$out/bench.jsonl" | python3 -c '
import json, sys
figures = json.loads(sys.stdin.readline())
print("%-75s prompt %9.1f  decode %8.1f tok/s" %
      (sys.argv[1], figures["prompt_tok_s"], figures["decode_tok_s"]))' "$shape")
    echo "$figures  $(clock_since "$at")"
  done
}
export clocks
export -f bench mark clock_since

stage_tests='*/cuda*:*Cuda*'
golden_tests='*GoldenCuda*:*Synth*cuda*:Golden.LogProbabilities'
micro='*CudaMicro*'
for name in "${parts[@]}"; do
  case $name in
    stages) tests stages 200 .gpu/test_kernels "$stage_tests" ;;
    goldens) tests goldens 200 .gpu/test_golden "$golden_tests" ;;
    paths)
      for arch in 75 80; do
        if [[ ! -d .gpu/generic$arch ]]; then
          summary+=("paths: no .gpu/generic$arch, tools/gpu/build.sh paths makes it")
          continue
        fi
        # The driver compiles for this card once and keeps what it made.
        part "compile_generic$arch" 240 ".gpu/generic$arch/test_kernels" \
          --gtest_filter='CudaBackend.IsNamedAfterItsCard'
        tests "stages_generic$arch" 240 ".gpu/generic$arch/test_kernels" "$stage_tests"
        tests "goldens_generic$arch" 240 ".gpu/generic$arch/test_golden" "$golden_tests"
      done ;;
    memcheck) sanitiser memcheck "$micro:*LayerOfThe20bForFewRows:CudaTensorCores.SmallShapes:CudaAttention.*:CudaBackend.Draws*:CudaDraws.Stop*:CudaDraws.With*" ;;
    racecheck) sanitiser racecheck "$micro:CudaAttention.EdgesOfPages:CudaDraws.Stop*:CudaDraws.With*:CudaDraws.Verify*" ;;
    initcheck | synccheck) sanitiser "$name" "$micro:CudaAttention.EdgesOfPages" ;;
    bench) part bench 300 bash -c bench
      cat "$out/bench.log" ;;
    agreement) part agreement 300 .gpu/bench_agreement --backend cuda
      grep 'mean KL' "$out/agreement.log" ;;
    flat) part flat 240 env OUT="$out" STRATA=.gpu/strata python3 tools/gpu/flat.py
      cat "$out/flat.log" ;;
    *) echo "unknown part $name" >&2; exit 2 ;;
  esac
done

echo
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
echo "commit $(<.gpu/commit)"
printf '%s\n' "${summary[@]}"
