#!/usr/bin/env bash
# Runs every program of this folder, one after the other, on an otherwise idle machine.
#   bench/serving/run.sh [--history FILE] [NAME...]     names: cut overload ...; default: all but soak
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
history=()
if [[ ${1:-} == --history ]]; then
  history=(--history "$2")
  shift 2
fi
programs=("$@")
((${#programs[@]})) || programs=(stream_cost cut overload drain hang kv cache long_prompt)
missed=()
for program in "${programs[@]}"; do
  "./$program.py" "${history[@]}" || missed+=("$program")
done
((${#missed[@]})) && echo "bounds missed in: ${missed[*]}"
((${#missed[@]} == 0))
