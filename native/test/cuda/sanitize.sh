#!/bin/bash
# compute-sanitizer's memcheck and racecheck over a small training run on a GPU: every kernel of a step, with 8-bit state and
# bf16 parameters and with paged 32-bit state and f32. Ends within a minute; exit code 1 where one finds anything.
#   native/test/cuda/sanitize.sh [folder of memory_bench: out/native/bench]
# cuBLASLt's own kernels (nvjet) are left out: racecheck does not know the barriers by which they are ordered.
set -u
bench="${1:-out/native/bench}/memory_bench"
run=("$bench" --shape demo --layers 1 --tokens 32 --steps 1 --link no --cases mb1-bf16-8bit,mb1-paged)
failed=0
for tool in memcheck racecheck; do
  echo "-- $tool"
  timeout 60 compute-sanitizer --tool "$tool" --error-exitcode 1 --kernel-name-exclude kernel_substring=nvjet "${run[@]}" 2>&1 |
    grep -E '^=========|rror' | tail -20
  [ "${PIPESTATUS[0]}" = 0 ] || failed=1
done
[ "$failed" = 0 ] && echo clean
exit $failed
