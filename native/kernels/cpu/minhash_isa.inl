// minhash_permute of kernels/minhash.h on vectors of 64-bit lanes: included by minhash_avx2.cpp and minhash_avx512.cpp,
// which bring the type `Lanes` and its operations. Of a minimum only the lower half of a lane counts.
namespace {

struct Permutations {
  Lanes a_high, a_low, b, minima;
};

/// @param hash in the lower half of every lane; what is in the upper half does not matter
CARAVAN_INLINE void take(Permutations& p, Lanes hash, Lanes prime, Lanes one) {
  const Lanes high = multiply_low_halves(p.a_high, hash);
  const Lanes low = multiply_low_halves(p.a_low, hash);
  const Lanes from_high = add(right<29>(high), both(left<32>(high), prime));
  const Lanes from_low = add(right<61>(low), both(low, prime));
  const Lanes sum = add(add(from_high, from_low), p.b);
  const Lanes folded = add(right<61>(sum), both(sum, prime));
  p.minima = least_halves(p.minima, add(folded, right<61>(add(folded, one))));
}

CARAVAN_INLINE Permutations first(const uint64_t* a, const uint64_t* b) {
  const Lanes both_halves = load_lanes(a);
  return {right<32>(both_halves), both_halves, load_lanes(b), every(~uint64_t{0})};
}

/// `vectors` at a time, so that their chains of operations overlap.
template <int vectors>
CARAVAN_INLINE void minima_of(uint32_t* minima, const uint32_t* hashes, int64_t count, const uint64_t* a,
                              const uint64_t* b) {
  const Lanes prime = every((uint64_t{1} << 61) - 1), one = every(1);
  Permutations p[vectors];
  for (int v = 0; v < vectors; ++v) p[v] = first(a + v * lanes, b + v * lanes);
  for (int64_t j = 0; j < count; ++j) {
    const Lanes hash = spread(hashes[j]);
    for (int v = 0; v < vectors; ++v) take(p[v], hash, prime, one);
  }
  for (int v = 0; v < vectors; ++v) store_low_halves(minima + v * lanes, p[v].minima);
}

}  // namespace

void minhash_minima(uint32_t* minima, const uint32_t* hashes, int64_t count, const uint64_t* a, const uint64_t* b,
                    int64_t permutations) {
  int64_t i = 0;
  for (; i + 2 * lanes <= permutations; i += 2 * lanes) minima_of<2>(minima + i, hashes, count, a + i, b + i);
  for (; i < permutations; i += lanes) minima_of<1>(minima + i, hashes, count, a + i, b + i);
}
