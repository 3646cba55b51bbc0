// XXH64, words, shingles, Jaccard, permutations and bands: each against a second way of computing it.
#include "engine/data/minhash.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "engine/data/xxh64.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/minhash.h"

using namespace caravan;

namespace {

uint64_t hash_of(const std::string& text, uint64_t seed = 0) { return xxh64(text.data(), text.size(), seed); }

}  // namespace

TEST_CASE("xxh64 gives the published values") {
  CHECK(hash_of("") == 0xef46db3751d8e999u);
  CHECK(hash_of("a") == 0xd24ec4f1a98c6e5bu);
  CHECK(hash_of("abc") == 0x44bc2cf5ad770999u);
  CHECK(hash_of("Nobody inspects the spammish repetition") == 0xfbcea83c8a378bf1u);  // more than one block of 32 bytes
}

TEST_CASE("words are letters, digits and marks in lower case") {
  CHECK(words_of("") == "");
  CHECK(words_of(" \t...!? \n") == "");
  CHECK(words_of("  The QUICK,brown\n\tfox_42 jumps.") == "the quick brown fox 42 jumps");
  CHECK(words_of("\xC3\x89t\xC3\xA9") == "\xC3\xA9t\xC3\xA9");                       // Été, composed
  CHECK(words_of("E\xCC\x81te\xCC\x81") == "\xC3\xA9t\xC3\xA9");                     // and decomposed
  CHECK(words_of("\xE2\x80\x9Cna\xC3\xAFve\xE2\x80\x9D") == "na\xC3\xAFve");         // curly quotes
  CHECK(words_of("\xE4\xBD\xA0\xE5\xA5\xBD ok") == "\xE4\xBD\xA0 \xE5\xA5\xBD ok");  // ideographs, one by one
  CHECK(words_of("ok\xE4\xBD\xA0ok") == "ok \xE4\xBD\xA0 ok");
  CHECK(words_of("a\xC3\x97"
                 "b") == "a b");  // a multiplication sign is no letter
}

TEST_CASE("shingles are words in a row; a short text is one shingle, a text without words none") {
  const auto hashes = shingle_hashes("One, two; three: FOUR.", 3);
  CHECK(hashes == std::vector<uint64_t>{hash_of("one two three"), hash_of("two three four")});
  CHECK(shingle_hashes("One two!", 3) == std::vector<uint64_t>{hash_of("one two")});
  CHECK(shingle_hashes("?!", 3).empty());
  CHECK(shingle_hashes("a b", 1) == std::vector<uint64_t>{hash_of("a"), hash_of("b")});
  CHECK(shingle_set("a b a b a b", 2).size() == 2);
}

TEST_CASE("jaccard equals the similarity of the sets of strings") {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    const int ngram = 1 + static_cast<int>(random() % 3);
    std::vector<std::vector<std::string>> texts(2);
    std::vector<std::set<std::string>> sets(2);
    std::vector<std::string> joined(2);
    for (int t = 0; t < 2; ++t) {
      const auto count = 1 + random() % 40;
      for (size_t i = 0; i < count; ++i) texts[t].push_back(std::string(1, 'w').append(std::to_string(random() % 12)));
      for (const auto& word : texts[t]) joined[t] += word + (random() % 2 == 0 ? " " : ", ");
      const size_t n = std::min<size_t>(static_cast<size_t>(ngram), count);
      for (size_t i = 0; i + n <= count; ++i) {
        std::string shingle;
        for (size_t k = 0; k < n; ++k) shingle += texts[t][i + k] + " ";
        sets[t].insert(shingle);
      }
    }
    std::vector<std::string> shared;
    std::set_intersection(sets[0].begin(), sets[0].end(), sets[1].begin(), sets[1].end(), std::back_inserter(shared));
    const double expected =
        static_cast<double>(shared.size()) / static_cast<double>(sets[0].size() + sets[1].size() - shared.size());
    CHECK(jaccard(shingle_set(joined[0], ngram), shingle_set(joined[1], ngram)) == expected);
  }
  CHECK(jaccard({}, {}) == 0.0);
}

TEST_CASE("a permutation is (a h + b) mod 2^61 - 1, its low 32 bits, in every instruction set") {
  std::mt19937_64 random(2);
  const auto plain = [](uint32_t h, uint64_t a, uint64_t b) {
    // By doubling and adding, never beyond 64 bits.
    uint64_t product = 0, term = a % minhash_prime;
    for (uint32_t left = h; left != 0; left >>= 1, term = term * 2 % minhash_prime) {
      if (left & 1) product = (product + term) % minhash_prime;
    }
    return static_cast<uint32_t>((product + b) % minhash_prime);
  };
  std::vector<uint32_t> hashes{0, 1, 0xffffffffu, 0x80000000u};
  for (int i = 0; i < 200; ++i) hashes.push_back(static_cast<uint32_t>(random()));
  Permutations drawn = draw_permutations(30, 42);
  // Extremes, and one whose value before the last step is the prime itself: a h + b = prime.
  drawn.a.insert(drawn.a.end(), {1, minhash_prime - 1, minhash_prime - 1, 1, 0x100000000u, 0xffffffffu, 1});
  drawn.b.insert(drawn.b.end(), {0, minhash_prime - 1, 0, minhash_prime - 1, 1, 7, minhash_prime - 0xffffffffu});
  const auto permutations = static_cast<int64_t>(drawn.a.size());
  for (size_t i = 0; i < drawn.a.size(); ++i) {
    CHECK(drawn.a[i] > 0);
    CHECK(drawn.a[i] < minhash_prime);
    CHECK(drawn.b[i] < minhash_prime);
    for (const uint32_t h : hashes) {
      REQUIRE(minhash_permute(h, drawn.a[i], drawn.b[i]) == plain(h, drawn.a[i], drawn.b[i]));
    }
  }

  const cpu::Isa widest = cpu::cpu_isa();
  for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{5}, static_cast<int64_t>(hashes.size())}) {
    std::vector<uint32_t> expected(drawn.a.size(), 0xffffffffu);
    for (size_t i = 0; i < drawn.a.size(); ++i) {
      for (int64_t j = 0; j < count; ++j) {
        expected[i] = std::min(expected[i], plain(hashes[static_cast<size_t>(j)], drawn.a[i], drawn.b[i]));
      }
    }
    for (const cpu::Isa isa : {cpu::Isa::portable, cpu::Isa::avx2, cpu::Isa::avx512}) {
      if (cpu::limit_cpu_isa(isa) != isa) continue;
      CAPTURE(cpu::isa_name(isa));
      std::vector<uint32_t> minima(drawn.a.size());
      minhash_minima(minima.data(), hashes.data(), count, drawn.a.data(), drawn.b.data(), permutations);
      CHECK(minima == expected);
    }
    cpu::limit_cpu_isa(widest);
  }
}

TEST_CASE("bands are those of the published tools") {
  const auto bands = [](int permutations, double threshold) {
    const BandShape shape = best_bands(permutations, threshold);
    return std::pair(shape.bands, shape.rows);
  };
  CHECK(bands(240, 0.7) == std::pair(24, 10));                                           // text-dedup
  CHECK(bands(250, 0.7) == std::pair(25, 10));                                           // text-dedup, 2023
  CHECK(bands(256, 0.7) == std::pair(25, 10));                                           // BigCode
  CHECK(bands(128, 0.5) == std::pair(25, 5));                                            // datasketch's own example
  CHECK(candidate_probability(0.8, {14, 8}) == doctest::Approx(0.924).epsilon(0.001));   // datatrove's figure
  CHECK(candidate_probability(0.8, {20, 13}) == doctest::Approx(0.677).epsilon(0.001));  // NeMo Curator's
}

TEST_CASE("the share of equal minima estimates the similarity") {
  // 4000 minima: a standard error of at most 0.008.
  const Permutations drawn = draw_permutations(4000, 7);
  std::mt19937 random(3);
  for (const double similarity : {0.1, 0.5, 0.9}) {
    std::vector<uint32_t> a, b;
    for (int i = 0; i < 1000; ++i) {
      const auto word = static_cast<uint32_t>(random());
      const bool shared = i < similarity * 1000;
      if (shared || i % 2 == 0) a.push_back(word);
      if (shared || i % 2 == 1) b.push_back(word);
    }
    std::vector<uint32_t> of_a(4000), of_b(4000);
    minhash_minima(of_a.data(), a.data(), static_cast<int64_t>(a.size()), drawn.a.data(), drawn.b.data(), 4000);
    minhash_minima(of_b.data(), b.data(), static_cast<int64_t>(b.size()), drawn.a.data(), drawn.b.data(), 4000);
    int equal = 0;
    for (size_t i = 0; i < 4000; ++i) equal += of_a[i] == of_b[i];
    CHECK(std::abs(equal / 4000.0 - similarity) < 4 * std::sqrt(similarity * (1 - similarity) / 4000));
  }
}
