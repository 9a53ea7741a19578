#!/usr/bin/env bash
# Runs on the host of a card, in a checkout with .gpu/ made by tools/gpu/build.sh: `strata bench` of
# the CPU backend with the 20b's shape and random weights, and llama.cpp on the same processors and
# the same weights where there is a llama-bench. About four minutes in all; a table of the results
# comes last, full logs go to $OUT (default: .gpu/out).
#
#   tools/gpu/cpu_host.sh                   all parts
#   tools/gpu/cpu_host.sh strata            only this one: llama strata
#
# LLAMA_BENCH: default .gpu/llama/llama-bench, the part is left out where it is not.
# GGUF: default /tmp/20b-bf16.gguf, 14 GB, made by .gpu/dummy_gguf if missing.
# THREADS: default all processors and half of them.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${OUT:-$PWD/.gpu/out}
mkdir -p "$out"
parts=("$@")
((${#parts[@]})) || parts=(llama strata)
llama_bench=${LLAMA_BENCH:-.gpu/llama/llama-bench}
gguf=${GGUF:-/tmp/20b-bf16.gguf}
read -r -a threads <<<"${THREADS:-$(nproc) $((($(nproc) + 1) / 2))}"
export LD_LIBRARY_PATH=$PWD/.gpu/lib:$(dirname "$llama_bench")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
chmod +x .gpu/strata .gpu/dummy_gguf

table=()
row() { table+=("$(printf '%-10s %-34s %7s %14s %9s %10s' "$@")"); }
number() { sed -nE "s/.*\"$2\": ?([0-9.]+).*/\1/p" <<<"$1"; }
row program settings threads 'prompt, tok/s' 'decode' 'reads GB/s'

strata() {
  local count=$1 line
  shift
  echo "== strata, $count threads, $*"
  line=$(timeout 60 .gpu/strata bench --json --backend cpu --models-dir models \
    --load-format dummy:20b --prompt-tokens 256 --output-tokens 32 \
    --max-num-batched-tokens 256 --threads "$count" "$@" 2>>"$out/strata.log")
  echo "$line" >>"$out/strata.json"
  row strata "${*:-bf16}" "$count" "$(number "$line" prompt_tok_s)" \
    "$(number "$line" decode_tok_s)" "$(number "$line" roof_gb_s)"
}

# No card is visible to it: with one, prompts would be computed there.
llama() {
  local flash lines
  if [[ ! -x $llama_bench ]]; then
    echo "== no $llama_bench"
    return
  fi
  if [[ ! -e $gguf ]]; then
    echo "== $gguf"
    timeout 120 .gpu/dummy_gguf :20b bf16 "$gguf" || return
  fi
  for flash in 0 1; do
    echo "== llama.cpp, flash attention $flash"
    lines=$(CUDA_VISIBLE_DEVICES='' timeout 60 "$llama_bench" -m "$gguf" -ngl 0 -t "$1" -p 256 -n 32 \
      -b 256 -ub 256 -fa $flash -r 2 -o jsonl 2>>"$out/llama.log")
    echo "$lines" >>"$out/llama.json"
    row llama.cpp "bf16, -fa $flash" "$1" "$(number "$(head -n 1 <<<"$lines")" avg_ts)" \
      "$(number "$(tail -n 1 <<<"$lines")" avg_ts)" ''
  done
}

for name in "${parts[@]}"; do
  case $name in
    llama) llama "${threads[0]}" ;;
    strata)
      for settings in '' '--dense-dtype int8' '--dense-dtype int8 --cpu-act int8'; do
        # shellcheck disable=SC2086
        strata "${threads[0]}" $settings
      done
      for other in "${threads[@]:1}"; do strata "$other"; done ;;
    *) echo "unknown part $name" >&2; exit 2 ;;
  esac
done

echo
lscpu | sed -nE 's/^(Model name|CPU\(s\)|Thread\(s\) per core): +(.*)/\1: \2/p'
echo "commit $(<.gpu/commit)"
printf '%s\n' "${table[@]}"
