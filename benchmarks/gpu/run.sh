#!/usr/bin/env bash
# Everything that wants a GPU, unattended: benchmarks/gpu/run.sh first|second|STEP... [--minutes M]
# [--results DIR]; --help tells more. PYTHON names the Python to run in (python3).
PYTHON=${PYTHON:-python3}
command -v "$PYTHON" >/dev/null || {
  echo "error: there is no $PYTHON; install Python 3.10 or later, or name it in PYTHON" >&2
  exit 4
}
exec "$PYTHON" "$(dirname "$0")/run.py" "$@"
