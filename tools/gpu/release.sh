#!/usr/bin/env bash
# Builds the program for every card it knows, in build/release-cuda: machine code for compute
# capability 7.5 to 12.0, and portable code from which a driver makes that of others. Prints what is
# in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tools/setup/packages.sh

cmake -S . -B build/release-cuda -G Ninja -DCMAKE_BUILD_TYPE=Release -DSTRATA_CUDA=ON \
  "-DSTRATA_CUDA_ARCHS=75;80;86;89;90a;100;120;90-ptx" -DSTRATA_TESTS=OFF >/dev/null
ninja -C build/release-cuda -j "$(build_jobs)" strata
build/release-cuda/strata plan >/dev/null # starts without a driver
ls -l build/release-cuda/strata
if command -v cuobjdump >/dev/null; then
  cuobjdump --list-elf --list-ptx build/release-cuda/strata | grep -oE 'sm_[0-9]+a?\.(cubin|ptx)' |
    sort | uniq -c
else
  say "cuobjdump (package cuda-cuobjdump) would list the code inside"
fi
