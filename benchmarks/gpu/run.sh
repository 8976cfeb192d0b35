#!/usr/bin/env bash
# Everything that wants a GPU, unattended: each step logs beside its JSON under benchmarks/results/,
# and none stops the others.
#
#   benchmarks/gpu/run.sh [STEP...]      all steps, or only those named:
#     build facts correct sanitize plugin scan network models profile
#
# Environment: PYTHON (python3); DVMSR_CHECKPOINT (the bundled student); RLFN_CHECKPOINT, for network;
# MAMBA_SSM and CAUSAL_CONV1D, folders of their sources, to build them first and in the background;
# DVMSR_RUN, what results are called, by default <gpu>-<date>.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

PYTHON=${PYTHON:-python3}
DVMSR_CHECKPOINT=${DVMSR_CHECKPOINT:-dvmsr/weights/dvmsr_x4.safetensors}
GPU=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
[ -n "$GPU" ] || { echo "error: no NVIDIA GPU (nvidia-smi names none)" >&2; exit 4; }
SLUG=$(tr '[:upper:]' '[:lower:]' <<<"$GPU" | tr -cs '[:alnum:]' - | sed 's/^-*//; s/-*$//')
export DVMSR_RUN=${DVMSR_RUN:-$SLUG-$(date -u +%Y%m%d)}
RESULTS=benchmarks/results
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
mkdir -p "$RESULTS"
WANTED=("$@")
FAILED=()

# command_line dvmsr|dvmsr_export|dvmsr_infer ARGUMENT...
command_line() {
  local name=$1
  shift
  "$PYTHON" -c "from dvmsr import entry; entry.$name()" "$@"
}

wanted() {
  [ ${#WANTED[@]} -eq 0 ] && return 0
  local name
  for name in "${WANTED[@]}"; do [ "$name" = "$1" ] && return 0; done
  return 1
}

# step NAME COMMAND...: runs it with its output in the log, and notes a failure.
step() {
  local name=$1 log="$RESULTS/$DVMSR_RUN-$1.log" started=$SECONDS
  shift
  echo "== $name" >&2
  if "$@" >"$log" 2>&1; then
    echo "   done in $((SECONDS - started)) s" >&2
  else
    echo "   FAILED with exit code $?, see $log" >&2
    FAILED+=("$name")
  fi
}

build_mamba() {
  export MAMBA_FORCE_BUILD=TRUE MAMBA_KEEP_CUDA_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE
  TORCH_CUDA_ARCH_LIST=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)
  export TORCH_CUDA_ARCH_LIST
  local folder
  for folder in "${CAUSAL_CONV1D:-}" "${MAMBA_SSM:-}"; do
    [ -z "$folder" ] || "$PYTHON" -m pip install --no-build-isolation --no-deps "$folder" || return
  done
}

sanitize() {
  command -v compute-sanitizer || { echo "compute-sanitizer is not installed"; return 4; }
  local tool status=0
  for tool in memcheck racecheck initcheck; do
    echo "-- $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 3 \
      "$PYTHON" benchmarks/gpu/correctness.py --small || status=$?
  done
  return "$status"
}

models() {
  command_line dvmsr_export onnx "$DVMSR_CHECKPOINT" -o "$WORK/fp32.onnx" || return
  command_line dvmsr_export onnx "$DVMSR_CHECKPOINT" --fp16 -o "$WORK/fp16.onnx" || return
  local models=() name
  for name in fp32 fp16; do
    command_line dvmsr_infer examples/chelsea.png --model "$WORK/$name.onnx" --backend cuda \
      -o "$WORK/$name.cuda.png" && models+=("$WORK/$name.onnx:cuda")
    command_line dvmsr_export trt "$WORK/$name.onnx" -o "$WORK/$name.engine" &&
      command_line dvmsr_infer examples/chelsea.png --engine "$WORK/$name.engine" \
        -o "$WORK/$name.trt.png" && models+=("$WORK/$name.engine")
  done
  [ ${#models[@]} -gt 0 ] || { echo "neither ONNX Runtime for CUDA nor TensorRT works here"; return 4; }
  command_line dvmsr bench "${models[@]}" --size 256x256 --size 339x510 --json \
    >"$RESULTS/$DVMSR_RUN-models.json"
  local status=$? model
  for model in "${models[@]}"; do
    command_line dvmsr parity "$DVMSR_CHECKPOINT" "$model" || status=$?
  done
  return "$status"
}

profile() {
  command -v ncu || { echo "ncu is not installed"; return 4; }
  ncu --set full --launch-count 12 "$PYTHON" benchmarks/gpu/scan.py \
    --lengths 65536 --batches 1 --dtypes float16 --rounds 1
}

# So that the results of a profiled run, which are slow, do not replace the measured ones.
profile_aside() { DVMSR_RUN="$DVMSR_RUN-profiled" profile; }

MAMBA_JOB=
if [ -n "${MAMBA_SSM:-}${CAUSAL_CONV1D:-}" ]; then
  build_mamba >"$RESULTS/$DVMSR_RUN-mamba-build.log" 2>&1 &
  MAMBA_JOB=$!
fi

wanted build && step build command_line dvmsr_export cuda-path --build
wanted facts && step facts "$PYTHON" benchmarks/gpu/facts.py
wanted correct && step correct "$PYTHON" benchmarks/gpu/correctness.py
wanted plugin && step plugin "$PYTHON" benchmarks/gpu/plugin.py
if [ -n "$MAMBA_JOB" ]; then
  wait "$MAMBA_JOB" || FAILED+=(mamba-build)
fi
wanted scan && step scan "$PYTHON" benchmarks/gpu/scan.py
if wanted network; then
  if [ -n "${RLFN_CHECKPOINT:-}" ]; then
    step network "$PYTHON" benchmarks/gpu/network.py "$DVMSR_CHECKPOINT" "$RLFN_CHECKPOINT"
  else
    echo "== network: left out, RLFN_CHECKPOINT names no file" >&2
  fi
fi
wanted models && step models models
wanted sanitize && step sanitize sanitize
wanted profile && step profile profile_aside

if [ ${#FAILED[@]} -gt 0 ]; then
  echo "failed: ${FAILED[*]}" >&2
  exit 1
fi
