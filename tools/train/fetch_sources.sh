#!/bin/sh
# Download the raw source packages of the training facts into DIR and unpack them.
# Usage: fetch_sources.sh DIR
# Needs apt-get (Debian 12), npm and tar. Versions and licences: sources.json.
set -eu
dir=${1:?usage: fetch_sources.sh DIR}
mkdir -p "$dir"
cd "$dir"
apt-get download bsdgames wordnet-base unicode-cldr-core
for name in bsdgames wordnet-base unicode-cldr-core; do
  dpkg-deb --extract "$name"_*.deb "$name"
done
for spec in countries-list@3.4.1 gpt-tokenizer@4.0.0; do
  npm pack --silent "$spec"
  name=${spec%@*}
  mkdir -p "$name"
  tar --extract --gzip --strip-components=1 --directory "$name" \
    --file "$name-${spec#*@}.tgz"
done
