#!/usr/bin/env bash
# sweep.sh STRATA [bench flags]: decode and prompt speed for every number of threads up to the
# processors there are, with and without huge pages, and which setting decodes fastest.
set -euo pipefail
strata=$1
shift
best=0
setting=""
for pages in auto off; do
  for threads in $(seq 1 "$(nproc)"); do
    line=$("$strata" bench --json --threads "$threads" --huge-pages "$pages" "$@")
    read -r decode prompt roof <<< "$(sed -E \
      's/.*"roof_gb_s":([0-9.]+).*"prompt_tok_s":([0-9.]+).*"decode_tok_s":([0-9.]+).*/\3 \2 \1/' <<< "$line")"
    echo "threads $threads, huge pages $pages: decode $decode, prompt $prompt tok/s, reads $roof GB/s"
    if awk "BEGIN { exit !($decode > $best) }"; then
      best=$decode
      setting="threads $threads, huge pages $pages"
    fi
  done
done
echo "best: $setting, $best tok/s"
