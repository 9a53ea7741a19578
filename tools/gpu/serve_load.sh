#!/usr/bin/env bash
# Runs on a machine with a card, in a checkout with .gpu/ made by tools/gpu/build.sh: a server with
# random weights in the 20b's shape under `strata bench serve`. Open loop with mixed prompts at
# rising rates, single prompts of several lengths, five users; a table comes last, with the SM clock
# beside each line, logs and the JSON of every run go to $OUT (default: .gpu/out). Each server takes
# less than five minutes.
#
#   tools/gpu/serve_load.sh                 Strata
#   tools/gpu/serve_load.sh FILE.gguf       then llama-server (.gpu/llama/llama-server) with FILE,
#                                           which .gpu/dummy_gguf :20b q8_0 FILE writes
#
# Variables, with their defaults; a try without a card on the embedded model:
#   BACKEND=cpu LOAD_FORMAT=safetensors CONTEXT=2048 PLACES=4 RATES="1 2" SECONDS_EACH=5 INPUT=200 \
#     PROMPTS="32 128" STRATA=build/dev/strata tools/gpu/serve_load.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export BACKEND=${BACKEND:-cuda} LOAD_FORMAT=${LOAD_FORMAT:-dummy:20b}
export MODEL=${MODEL:-models/strata-tiny}           # its tokenizer; with safetensors its weights
export PLACES=${PLACES:-32} CONTEXT=${CONTEXT:-33024} # sequences at once, tokens of each
export RATES=${RATES:-1 2 3 4 5 6 8 10 16}          # requests/s, until fewer than half are good
export CHUNKS=${CHUNKS:-512 1024}                   # tokens of a step (llama-server: -ub), in turn
export SECONDS_EACH=${SECONDS_EACH:-25}
export INPUT=${INPUT:-4100} OUTPUT=${OUTPUT:-128}   # mean tokens, uniform in +-95 %: 205 to 7995
export PROMPTS=${PROMPTS:-128 512 1024 2048 8192 32768}
export REPEATS=${REPEATS:-5}
export STRATA=${STRATA:-.gpu/strata} LLAMA=${LLAMA:-.gpu/llama/llama-server}
export STRATA_ARGS=${STRATA_ARGS:-} LLAMA_ARGS=${LLAMA_ARGS:-}
export GGUF=${1:-}
OUT=${OUT:-$PWD/.gpu/out}
export OUT
LD_LIBRARY_PATH=$PWD/.gpu/lib:$(dirname "$LLAMA")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
mkdir -p "$OUT"
chmod +x "$STRATA"
exec python3 tools/gpu/serve_load.py
