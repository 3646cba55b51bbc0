// Finds where texts repeat stretches of known ones (a benchmark's items): word n-grams in common, as GPT-3's authors
// looked for them, and texts that are equal word for word.
//
// Words are those of minhash.h: case, punctuation and spacing do not count. A part with at least `ngram` words is known by
// every n-gram; a shorter one, down to `floor` words, as a whole; one with fewer words only where a text consists of it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/exec.h"

namespace caravan {

struct OverlapOptions {
  int ngram = 13;
  int floor = 8;
  /// 0: one per core. No result depends on it.
  int threads = 0;
};

/// A part that a text repeats, wholly or in stretches.
struct Overlap {
  int32_t text;  // of the call
  int32_t part;
  bool equal;       // word for word, and nothing else
  int32_t covered;  // words of the part that lie in n-grams in common
  int32_t longest;  // of the stretches that these words form
};

class OverlapSearch {
 public:
  /// @throws EngineError bad_option naming the field
  explicit OverlapSearch(const OverlapOptions& options);

  /// Takes in the next parts, numbered in the order of all calls. @returns the number of words of each
  /// @throws EngineError wrong_state after the first scan
  std::vector<int32_t> add(std::span<const std::string_view> parts);

  /// By text, then part.
  std::vector<Overlap> scan(std::span<const std::string_view> texts);

 private:
  /// An n-gram of a part, or with `place` -1 the whole of one.
  struct Known {
    uint64_t hash;
    int32_t part;
    int32_t place;
    bool operator<(const Known& other) const;
  };
  std::span<const Known> find(const std::vector<Known>& known, uint64_t hash) const;
  void scan_text(std::string_view text, int32_t index, std::vector<Overlap>& found) const;

  OverlapOptions options_;
  std::shared_ptr<ThreadPool> pool_;
  Exec exec_;
  std::vector<int32_t> words_;  // of each part
  std::vector<Known> ngrams_;   // sorted once scanning begins, as are the wholes
  std::vector<Known> wholes_;
  std::vector<int> lengths_;      // of the n-grams, each once, rising
  std::vector<bool> beginnings_;  // by the hash of an n-gram's first `floor` words: most places of a text match none
  bool ready_ = false;
  void prepare();
  std::vector<uint64_t> begin_hashes_;
};

}  // namespace caravan
