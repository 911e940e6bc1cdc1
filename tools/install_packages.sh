#!/bin/sh
# Installs what is missing, with the system's package manager: tools/install_packages.sh build|test|lint|bench …
# As root it just does; else it asks before it uses sudo. When nothing is missing it does nothing, quickly.
set -eu

build="gcc libc6-dev make meson ninja-build pkg-config libdnnl-dev libjansson-dev libspng-dev libturbojpeg0-dev libwebp-dev
       libsodium-dev libpcre2-dev libutf8proc-dev zlib1g-dev libmicrohttpd-dev libsqlite3-dev libcurl4-openssl-dev python3-yaml"
test="libcmocka-dev g++ python3 xz-utils"
bench="wrk nginx-light"
lint="clang-format-14 clang-tidy-14 libomp-14-dev"

wanted=""
for group in "$@"; do
    case $group in
        build) wanted="$wanted $build" ;;
        test) wanted="$wanted $test" ;;
        lint) wanted="$wanted $lint" ;;
        bench) wanted="$wanted $bench" ;;
        *) echo "usage: $0 build|test|lint|bench …" >&2; exit 2 ;;
    esac
done

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    echo "This system has no apt. Please install the like of these packages of Debian:$(echo "$wanted" | tr -s ' \n' ' ')" >&2
    exit 0
fi

# A package counts as there when it, or one that provides it, is installed.
installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Package} ${Provides}\n' 2>/dev/null | sed -n 's/^ii //p' | tr ',' ' ' | tr -s ' ' '\n')
missing=""
for package in $wanted; do
    echo "$installed" | grep -qx "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "These packages are missing and will be installed:$missing"
sudo=""
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "Only root can install them, and there is no sudo. As root: apt-get install$missing" >&2
        exit 1
    fi
    printf 'Use sudo for that? [Y/n] '
    read -r answer || answer=n
    case $answer in
        "" | y | Y | yes | Yes) sudo="sudo" ;;
        *) echo "Then please install them yourself: apt-get install$missing" >&2; exit 1 ;;
    esac
fi
# The lists may be absent (containers) or too old to find the files that they name.
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 || {
    $sudo apt-get update
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
}
