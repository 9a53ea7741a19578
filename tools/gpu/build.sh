#!/usr/bin/env bash
# Builds what a bare machine with a card needs to test and measure the CUDA backend, into .gpu/:
# the program, the test binaries and their shared libraries. Copy the checkout with .gpu/ there and
# run tools/gpu/run.sh, or tools/gpu/cpu_host.sh for the CPU backend.
#
#   tools/gpu/build.sh             for Hopper cards (90a)
#   tools/gpu/build.sh "86;89"     for others
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tools/setup/packages.sh

archs=${1:-90a}
cmake -S . -B build/gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DSTRATA_CUDA=ON \
  -DSTRATA_CUDA_ARCHS="$archs" >/dev/null
ninja -C build/gpu -j "$(build_jobs)" strata test_kernels test_golden bench_cuda_kernels \
  dummy_gguf

rm -rf .gpu
mkdir -p .gpu/lib
cp build/gpu/strata build/gpu/tests/test_kernels build/gpu/tests/test_golden \
  build/gpu/bench/bench_cuda_kernels build/gpu/tools/gguf/dummy_gguf .gpu/
strip .gpu/strata .gpu/test_* .gpu/bench_* .gpu/dummy_gguf
# All but the C library, which belongs to the machine.
ldd .gpu/strata .gpu/test_* .gpu/bench_* .gpu/dummy_gguf | awk '$2 == "=>" { print $3 }' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread)\.so' | xargs -I{} cp -L {} .gpu/lib/
# Tests look for models and golden data where they were compiled.
pwd >.gpu/source_dir
git rev-parse --short HEAD >.gpu/commit
du -sh .gpu
