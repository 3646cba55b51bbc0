// Finds the near-duplicates among many texts: MinHash signatures cut into bands say which rows may be alike, the exact
// Jaccard similarity of their shingles says which are.
//
// Memory: of every row only its band keys stay (8 bytes a band: 192 bytes at 24 bands, 211 MB for 1.1 million rows).
// Shingles (8 bytes each) are held for the candidates that are loaded, and let go when they are verified.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/data/minhash.h"
#include "kernels/exec.h"

namespace caravan {

struct NearDuplicateOptions {
  /// Words of a shingle.
  int ngram = 5;
  int permutations = 240;
  /// 0: best_bands(permutations, threshold). Else rows of a band = permutations / bands.
  int bands = 0;
  /// Two rows are alike when their Jaccard similarity is at least this.
  double threshold = 0.7;
  uint64_t seed = 42;
  /// 0: one per core. No result depends on it.
  int threads = 0;
};

/// A row to leave out. Clusters are the connected parts of the graph whose edges are the alike candidates; of each, the
/// first row stays.
struct NearDuplicate {
  int32_t row;
  /// The row of its cluster that stays, and the similarity to it (which a chain of alike rows may take below the threshold).
  int32_t kept;
  double jaccard;
  /// `kept` where that is alike, else the first row of the cluster that is: why this row belongs to it.
  int32_t linked;
  double linked_jaccard;
};

class NearDuplicates {
 public:
  /// @throws EngineError bad_option naming the field
  explicit NearDuplicates(const NearDuplicateOptions& options);

  BandShape shape() const { return shape_; }
  int64_t rows() const { return static_cast<int64_t>(keys_[0].size()); }

  /// Takes in the next rows, numbered in the order of all calls. A row without a word resembles nothing.
  /// @throws EngineError wrong_state after find_candidates
  void add(std::span<const std::string_view> texts);

  /// Groups of rows, [offsets[g], offsets[g + 1]) of `rows`, connected by equal bands; rows rise within a group, first
  /// rows from group to group. Rows that share no band with another are in none.
  struct Candidates {
    std::vector<int32_t> rows;
    std::vector<int32_t> offsets{0};
  };
  const Candidates& find_candidates();

  /// Takes in the texts of candidates; `verify` then judges the groups that are loaded, of which every row must be, lets
  /// them go and returns what they lose, by group and row.
  /// @throws EngineError bad_option for a row that is no candidate; wrong_state before find_candidates, or where rows of
  ///   a group are missing
  void load(std::span<const int32_t> rows, std::span<const std::string_view> texts);
  std::vector<NearDuplicate> verify();

 private:
  std::vector<NearDuplicate> verify_group(std::span<const int32_t> rows,
                                          std::span<const std::vector<uint64_t>> sets) const;

  NearDuplicateOptions options_;
  BandShape shape_;
  Permutations permutations_;
  std::shared_ptr<ThreadPool> pool_;
  Exec exec_;
  std::vector<std::vector<uint64_t>> keys_;  // (bands, rows)
  bool searched_ = false;
  Candidates candidates_;
  std::vector<int32_t> place_;               // of a row in candidates_.rows, -1: none
  std::vector<std::vector<uint64_t>> sets_;  // by that place; empty: not loaded
  std::vector<int32_t> loaded_;              // places
};

}  // namespace caravan
