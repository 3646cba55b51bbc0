// What near-duplicates are measured by: shingles of words, their exact Jaccard similarity, and the arithmetic of cutting
// MinHash signatures into bands.
//
// Words are maximal runs of letters, digits and combining marks, after NFC and lower case; everything else only separates
// them. An ideograph or a kana, whose scripts put no spaces between words, is a word by itself. A shingle is `ngram` words
// in a row; a text with fewer words is one shingle, all of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

/// The words of a text (valid UTF-8), one space between them: what two texts share that differ only in case, spacing and
/// punctuation.
std::string words_of(std::string_view text);

/// XXH64 of every shingle (its words, one space between them), in the order of the text; empty where there is no word.
std::vector<uint64_t> shingle_hashes(std::string_view text, int ngram);

/// Sorted, each once: a set.
std::vector<uint64_t> shingle_set(std::string_view text, int ngram);

/// |a and b| / |a or b| of two sets, sorted; 0 where both are empty.
double jaccard(std::span<const uint64_t> a, std::span<const uint64_t> b);

/// A signature of bands * rows minima; two texts are candidates where all minima of a band agree.
struct BandShape {
  int bands;
  int rows;
};

/// The chance 1 - (1 - s^rows)^bands that texts of similarity s become candidates.
double candidate_probability(double similarity, BandShape shape);

/// The shape, of at most `permutations` minima, that errs least: half the area of false positives (candidates below the
/// threshold) plus half that of false negatives. As text-dedup and datasketch choose it.
BandShape best_bands(int permutations, double threshold);

/// The multipliers a and addends b of minhash_permute.
struct Permutations {
  std::vector<uint64_t> a, b;
};
Permutations draw_permutations(int count, uint64_t seed);

}  // namespace caravan
