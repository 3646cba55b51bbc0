#!/bin/bash
# compute-sanitizer's memcheck and racecheck over a small training run on a GPU: every kernel of a step of each optimizer and
# type of parameter, with recomputation and with state that is paged. Ends within a minute; exit code 1 where one finds anything.
#   native/test/cuda/sanitize.sh [folder of memory_bench: out/native/bench]
set -u
bench="${1:-out/native/bench}/memory_bench"
run=("$bench" --shape demo --layers 2 --tokens 96 --micro 2 --steps 1 --link no --cases mb1-bf16-8bit-recompute1,mb2-paged)
failed=0
for tool in memcheck racecheck; do
  echo "-- $tool"
  timeout 60 compute-sanitizer --tool "$tool" --error-exitcode 1 "${run[@]}" 2>&1 | grep -E '^=========|rror' | tail -20
  [ "${PIPESTATUS[0]}" = 0 ] || failed=1
done
exit $failed
