# Debian packages by purpose, and how they are installed. Sourced by ./run and ./test.

packages_serve=(g++ cmake ninja-build libexpected-dev libfmt-dev libspdlog-dev
  nlohmann-json3-dev libcli11-dev libboost1.81-dev prometheus-cpp-dev libssl-dev)
packages_test=(libgtest-dev libgmock-dev ccache mold clang-format-14 python3)
packages_full=(clang-19 clang-tidy-19 libfuzzer-19-dev libclang-rt-19-dev nodejs npm
  prometheus)

say() { printf '\033[1m%s\033[0m\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# install_packages NAME...: installs what is missing; nothing to do costs no network access.
install_packages() {
  command -v dpkg-query >/dev/null || die "this script needs Debian 12 or a system with apt; \
install these packages another way and build with: cmake --preset release && ninja -C build/release"
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      missing+=("$package")
  done
  # A Node.js that is already there, with its npm, serves as well as Debian's.
  if command -v node >/dev/null && command -v npm >/dev/null; then
    local keep=()
    for package in "${missing[@]}"; do
      [[ $package == nodejs || $package == npm ]] || keep+=("$package")
    done
    missing=("${keep[@]}")
  fi
  ((${#missing[@]})) || return 0
  local as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "these packages are missing: ${missing[*]}
become root, or install sudo, and run: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "Installing: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq || die "the package lists could not be read: is there a network?"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
    --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install: ${missing[*]}"
}

# A compile of the HTTP server takes up to 1 GB: fewer jobs where memory is short.
build_jobs() {
  local cores memory_gb
  cores=$(nproc)
  memory_gb=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  local by_memory=$((memory_gb > 1 ? memory_gb : 1))
  echo $((cores < by_memory ? cores : by_memory))
}

# The CUDA compiler, in PATH or where the toolkit installs it.
find_nvcc() { command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]]; }

# build_preset PRESET [-DNAME=VALUE...] [TARGET...]: configures once and builds.
build_preset() {
  local preset=$1 settings=()
  shift
  while [[ ${1:-} == -D* ]]; do
    settings+=("$1")
    shift
  done
  cmake --preset "$preset" "${settings[@]}" >"/tmp/strata-configure-$$.log" 2>&1 || {
    cat "/tmp/strata-configure-$$.log" >&2
    die "configuring the build failed"
  }
  rm -f "/tmp/strata-configure-$$.log"
  ninja -C "build/$preset" -j "$(build_jobs)" "$@" || die "the build failed"
}
