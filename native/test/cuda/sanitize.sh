#!/bin/bash
# compute-sanitizer's memcheck and racecheck over a small training run on a GPU: every kernel of a step, with 8-bit state and
# bf16 parameters and with paged 32-bit state and f32. Ends within a minute; exit code 1 where one finds anything.
#   native/test/cuda/sanitize.sh [folder of memory_bench: out/native/bench]
# What racecheck finds in cuBLASLt's own kernels (nvjet) does not count: it does not know the barriers that order them, and
# breaks down where it is told to leave them out.
set -u
bench="${1:-out/native/bench}/memory_bench"
run=("$bench" --shape demo --layers 1 --tokens 32 --steps 1 --link no --cases mb1-bf16-8bit,mb1-paged)
failed=0
for tool in memcheck racecheck; do
  echo "-- $tool"
  found=$(timeout 60 compute-sanitizer --tool "$tool" "${run[@]}" 2>&1 | grep '^=========')
  echo "$found" | tail -20
  echo "$found" | grep -q 'SUMMARY' || failed=1
  echo "$found" | grep 'Error' | grep -qv nvjet && failed=1
done
[ "$failed" = 0 ] && echo clean
exit $failed
