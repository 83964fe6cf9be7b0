#!/usr/bin/env bash
# Builds each graph of this kit into an engine, here, runs it on the golden inputs, and checks the answers.
# trtexec 10.3 (JetPack 6.1, 6.2), 10.16 (JetPack 7.2) and 11. Choices: CUDA_GRAPH=0|1 SPIN_WAIT=0|1 TRANSFERS=0|1
set -euo pipefail
cd "$(dirname "$0")"
TRTEXEC="${TRTEXEC:-$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)}"
OUT="${OUT:-out}"
if [ ! -x "$TRTEXEC" ]; then
  echo "no trtexec at $TRTEXEC; expected TensorRT 10.3 or later: install JetPack's tensorrt, or set TRTEXEC" >&2
  exit 2
fi
HELP="$("$TRTEXEC" --help 2>&1 || true)"
VERSION="$(sed -n 's/.*\[TensorRT v\([0-9]*\)\].*/\1/p' <<<"$HELP" | head -n 1)"
if [ "${VERSION:-0}" -lt 100300 ]; then
  echo "trtexec is of TensorRT v${VERSION:-?}; expected v100300 (JetPack 6.1) or later: update JetPack" >&2
  exit 2
fi
mkdir -p "$OUT"
has() { grep -q -e "$1\b" <<<"$HELP"; }
RUN=(--warmUp=200 --duration=3 --iterations=100 --avgRuns=1 --percentile=50,90,95,99)
{
  echo "tensorrt=v$VERSION"
  echo "board=$(tr -d '\0' </proc/device-tree/model 2>/dev/null || echo unknown)"
  echo "l4t=$(head -n 1 /etc/nv_tegra_release 2>/dev/null || echo none)"
  echo "power=$(nvpmodel -q 2>/dev/null | tr '\n' ' ' || echo unknown)"
} >"$OUT/record.txt"
choose() { # name, 0 or 1, flag for 1, flag for 0; a flag that this trtexec lacks is its default
  local flag="$3"
  [ "$2" = 1 ] || flag="$4"
  if has "$flag"; then RUN+=("$flag"); else flag="default"; fi
  echo "$1=$2 ($flag)" >>"$OUT/record.txt"
}
choose cuda_graph "${CUDA_GRAPH:-0}" --useCudaGraph --noCudaGraph
choose spin_wait "${SPIN_WAIT:-0}" --useSpinWait --noSpinWait
choose transfers "${TRANSFERS:-1}" --includeDataTransfers --noDataTransfers
MAKE=(--skipInference --builderOptimizationLevel=3 "--timingCacheFile=$OUT/timing.cache")
if has --stronglyTyped; then MAKE+=(--stronglyTyped); fi
echo "build=${MAKE[*]}" >>"$OUT/record.txt"
echo "run=${RUN[*]}" >>"$OUT/record.txt"

engine() { # name, smallest, usual, largest and golden shapes, golden inputs
  echo "building $1"
  "$TRTEXEC" "--onnx=graphs/$1.onnx" "--saveEngine=$OUT/$1.plan" \
    "--minShapes=$2" "--optShapes=$3" "--maxShapes=$4" "${MAKE[@]}" >"$OUT/$1.build.log" 2>&1 ||
    { tail -n 20 "$OUT/$1.build.log" >&2; exit 1; }
  "$TRTEXEC" "--loadEngine=$OUT/$1.plan" "--shapes=$5" "--loadInputs=$6" "${RUN[@]}" \
    "--exportOutput=$OUT/$1.json" "--exportTimes=$OUT/$1.times.json" >"$OUT/$1.run.log" 2>&1 ||
    { tail -n 20 "$OUT/$1.run.log" >&2; exit 1; }
}
