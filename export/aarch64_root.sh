#!/usr/bin/env bash
# Lays a user land for aarch64 into a new folder ROOT, from Debian's packages and wheels; nothing is installed here.
#   export/aarch64_root.sh ROOT
#   qemu-aarch64 -cpu cortex-a72 -L ROOT ROOT/usr/bin/python3.11 ...
# Needs Debian 12's apt (Python 3.11) and pip. qemu-user 7.2 multiplies INT8 wrongly by SME (-cpu max), 10.0 does not.
set -euo pipefail
[ $# = 1 ] && [ ! -e "$1" ] || { echo "got '$*'; expected one new folder: $0 ROOT" >&2; exit 2; }
mkdir -p "$1" && ROOT="$(cd "$1" && pwd)"
STATE="$(mktemp -d)"
trap 'rm -rf "$STATE"' EXIT
CONSTRAINTS="$(cd "$(dirname "$0")/.." && pwd)/constraints.txt"

mkdir -p "$STATE/lists/partial" "$STATE/archives/partial"
cat >"$STATE/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
Dir::State::lists "$STATE/lists";
Dir::Cache "$STATE";
END
export APT_CONFIG="$STATE/apt.conf"
apt-get update -qq
(cd "$STATE/archives" && apt-get download -qq python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 \
  libstdc++6 libgcc-s1 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libuuid1)
for package in "$STATE"/archives/*.deb; do dpkg-deb -x "$package" "$ROOT"; done

python3 -m pip install --quiet --target "$ROOT/usr/lib/python3/dist-packages" \
  --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 --python-version 3.11 --only-binary=:all: \
  --no-deps -c "$CONSTRAINTS" numpy onnxruntime tokenizers click

# qemu 7.2 shows programs the machine's own processor, and onnxruntime falls over such a one. This is a Cortex-A72; by
# what INT8 kernels are chosen, the kernel is asked, and there qemu answers for -cpu.
mkdir -p "$ROOT/proc"
cat >"$ROOT/proc/cpuinfo" <<END
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

END
