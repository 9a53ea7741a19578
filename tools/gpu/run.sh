#!/usr/bin/env bash
# Runs on a machine with a card, in a checkout with .gpu/ made by tools/gpu/build.sh: stage tests,
# goldens, compute-sanitizer on the smallest shapes, and `strata bench` of the 20b's shape with
# random weights. Every part has a time limit; all together stay under ten minutes. A table of the
# results comes last, full logs go to $OUT (default: .gpu/out).
#
#   tools/gpu/run.sh                        all parts
#   tools/gpu/run.sh stages goldens         only these: stages goldens memcheck racecheck bench
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${OUT:-$PWD/.gpu/out}
mkdir -p "$out"
parts=("$@")
((${#parts[@]})) || parts=(stages goldens memcheck racecheck bench)
export LD_LIBRARY_PATH=$PWD/.gpu/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
chmod +x .gpu/strata .gpu/test_*
source_dir=$(<.gpu/source_dir)
if [[ ! -e $source_dir ]]; then
  mkdir -p "$(dirname "$source_dir")" && ln -s "$PWD" "$source_dir"
fi

summary=()
# part NAME SECONDS COMMAND...: one line in the table, the output in $out/NAME.log.
part() {
  local name=$1 limit=$2 begin=$SECONDS code
  shift 2
  echo "== $name"
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  code=$?
  grep -E '^\[  (FAILED|PASSED)|^\[==========\]|ERROR SUMMARY|bug:|the card failed' "$out/$name.log" |
    cut -c1-200 | tail -n 12
  summary+=("$(printf '%-10s exit %-4s %4d s' "$name" "$code" "$((SECONDS - begin))")")
}

# Loads the model once for each shape. Lines of JSON go to $out/bench.jsonl.
bench() {
  local shape
  : >"$out/bench.jsonl"
  for shape in "--prompt-tokens 16 --dense-dtype bf16" "--prompt-tokens 16 --dense-dtype int8" \
    "--prompt-tokens 16 --dense-dtype int8 --cuda-path generic80" \
    "--prompt-tokens 16 --dense-dtype int8 --deterministic" \
    "--prompt-tokens 16 --dense-dtype int8 --context-tokens 65536 --output-tokens 64" \
    "--prompt-tokens 1024 --dense-dtype int8 --batch 8" \
    "--prompt-tokens 1024 --dense-dtype int8 --batch 32" \
    "--prompt-tokens 1024 --dense-dtype int8 --batch 64" "--prompt-tokens 512 --output-tokens 4" \
    "--prompt-tokens 2048 --output-tokens 4" "--prompt-tokens 8192 --output-tokens 4"; do
    # shellcheck disable=SC2086
    .gpu/strata bench --load-format dummy:20b --backend cuda --max-num-batched-tokens 2048 \
      --output-tokens 96 $shape --json >>"$out/bench.jsonl" || return 1
    tail -n 1 "$out/bench.jsonl" | python3 -c '
import json, sys
figures = json.loads(sys.stdin.readline())
print("%-75s prompt %9.1f  decode %8.1f tok/s" %
      (sys.argv[1], figures["prompt_tok_s"], figures["decode_tok_s"]))' "$shape"
  done
}

export out
export -f bench
for name in "${parts[@]}"; do
  case $name in
    stages) part stages 100 .gpu/test_kernels --gtest_filter='*/cuda:Cuda*' ;;
    goldens) part goldens 120 .gpu/test_golden --gtest_filter='GoldenCuda.*:*Synth*cuda*' ;;
    memcheck) part memcheck 100 compute-sanitizer --tool memcheck --error-exitcode 9 \
      .gpu/test_kernels --gtest_filter='*ModelSteps.Batch*/cuda:*Attend*Window*/cuda:*Experts*/cuda:*Dense*Head*/cuda:CudaBackend.Tensor*:CudaBackend.Streamed*:CudaBackend.Draws*' ;;
    racecheck) part racecheck 60 compute-sanitizer --tool racecheck --error-exitcode 9 \
      .gpu/test_kernels --gtest_filter='*ModelSteps.Padding*/cuda:*Attend*Page*/cuda' ;;
    bench) part bench 240 bash -c bench
      cat "$out/bench.log" ;;
    *) echo "unknown part $name" >&2; exit 2 ;;
  esac
done

echo
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
echo "commit $(<.gpu/commit)"
printf '%s\n' "${summary[@]}"
