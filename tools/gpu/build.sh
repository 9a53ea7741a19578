#!/usr/bin/env bash
# Builds what a bare machine with a card needs to test and measure the CUDA backend, into .gpu/:
# the program, the test binaries and their shared libraries. Copy the checkout with .gpu/ there and
# run tools/gpu/run.sh, or tools/gpu/cpu_host.sh for the CPU backend.
#
#   tools/gpu/build.sh             for Hopper cards (90a)
#   tools/gpu/build.sh "86;89"     for others
#   tools/gpu/build.sh paths       for Hopper cards, and the tests once more from portable code of
#                                  compute capability 7.5 and 8.0: what older cards run, for the
#                                  part `paths` of run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tools/setup/packages.sh

# build DIRECTORY ARCHS TARGET...
build() {
  cmake -S . -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSTRATA_CUDA=ON "-DSTRATA_CUDA_ARCHS=$2" \
    >/dev/null
  ninja -C "$1" -j "$(build_jobs)" "${@:3}"
}

archs=${1:-90a}
generic=()
if [[ $archs == paths ]]; then
  archs=90a
  generic=(75 80)
fi
build build/gpu "$archs" strata test_kernels test_golden bench_cuda_kernels bench_agreement dummy_gguf
for arch in "${generic[@]}"; do
  build "build/gpu-generic$arch" "$arch-ptx" test_kernels test_golden
done

rm -rf .gpu
mkdir -p .gpu/lib
cp build/gpu/strata build/gpu/tests/test_kernels build/gpu/tests/test_golden \
  build/gpu/bench/bench_cuda_kernels build/gpu/bench/bench_agreement \
  build/gpu/tools/gguf/dummy_gguf .gpu/
for arch in "${generic[@]}"; do
  mkdir ".gpu/generic$arch"
  cp "build/gpu-generic$arch/tests/test_kernels" "build/gpu-generic$arch/tests/test_golden" \
    ".gpu/generic$arch/"
done
mapfile -t binaries < <(find .gpu -type f)
strip "${binaries[@]}"
# All but the C library, which belongs to the machine.
ldd "${binaries[@]}" | awk '$2 == "=>" { print $3 }' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread)\.so' | xargs -I{} cp -L {} .gpu/lib/
# Tests and bench_agreement look for models and golden data where they were compiled.
pwd >.gpu/source_dir
git rev-parse --short HEAD >.gpu/commit
du -sh .gpu
