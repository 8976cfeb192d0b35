#!/usr/bin/env bash
# Every proof in turn; none stops the others. Their results lie in benchmarks/results/proof-*.json.
#
# Environment: PYTHON (python3).
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

FAILED=()
for proof in benchmarks/proof/*.py; do
  echo "== $proof" >&2
  "${PYTHON:-python3}" "$proof" || FAILED+=("$proof")
done
if [ ${#FAILED[@]} -gt 0 ]; then
  echo "failed: ${FAILED[*]}" >&2
  exit 1
fi
