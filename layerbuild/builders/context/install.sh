#!/bin/sh
# Installs system packages by whichever package manager there is.
# usage: install.sh "NAMES FOR APT" "NAMES FOR DNF" "NAMES FOR YUM"
set -eu

# Lambda's images put libraries of their own before the system's, which breaks its programs.
unset LD_LIBRARY_PATH
export LC_ALL=C

ca=/usr/local/layerbuild/ca.pem
[ -s "$ca" ] || ca=

if [ -z "$1$2$3" ]; then
  exit 0
fi

# Says which list is empty where another is not, instead of building without what was asked for.
names_for() {
  if [ -z "$2" ]; then
    echo "layerbuild: system-packages has no names for $1, the package manager of this base image" >&2
    exit 1
  fi
}

# Lists of names are split into words.
# shellcheck disable=SC2086
if command -v apt-get >/dev/null; then
  names_for apt "$1"
  apt-get ${ca:+-o "Acquire::https::CAInfo=$ca"} update
  DEBIAN_FRONTEND=noninteractive apt-get ${ca:+-o "Acquire::https::CAInfo=$ca"} \
    install --yes --no-install-recommends $1
  rm -rf /var/lib/apt/lists/*
elif command -v dnf >/dev/null; then
  names_for dnf "$2"
  dnf install -y ${ca:+"--setopt=sslcacert=$ca"} $2
  dnf clean all
elif command -v yum >/dev/null; then
  names_for yum "$3"
  yum install -y ${ca:+"--setopt=sslcacert=$ca"} $3
  yum clean all
else
  echo "layerbuild: this base image has neither apt-get nor dnf nor yum" >&2
  exit 1
fi
