#include "engine/data/near_duplicates.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <numeric>
#include <string>
#include <utility>

#include "engine/data/xxh64.h"
#include "engine/platform/error.h"
#include "kernels/minhash.h"

namespace caravan {

namespace {

/// In place of the band keys of a row without a word.
constexpr uint64_t no_words = std::numeric_limits<uint64_t>::max();
constexpr int64_t row_grain = 16;

/// Disjoint sets whose root is their least member, so that the sets alone say what the roots are.
class Forest {
 public:
  explicit Forest(size_t size) : parent_(size) { std::iota(parent_.begin(), parent_.end(), 0); }

  int32_t root(int32_t i) {
    while (parent_[static_cast<size_t>(i)] != i) {
      int32_t& parent = parent_[static_cast<size_t>(i)];
      parent = parent_[static_cast<size_t>(parent)];
      i = parent;
    }
    return i;
  }
  void unite(int32_t i, int32_t j) {
    const auto [low, high] = std::minmax({root(i), root(j)});
    parent_[static_cast<size_t>(high)] = low;
  }

 private:
  std::vector<int32_t> parent_;
};

struct KeyedRow {
  uint64_t key;
  int32_t row;
  bool operator<(const KeyedRow& other) const { return key != other.key ? key < other.key : row < other.row; }
};

/// Calls use(run) for the rows of every key that several of `keyed` share, rows rising.
template <typename Use>
void for_equal_keys(std::vector<KeyedRow>& keyed, Use&& use) {
  std::sort(keyed.begin(), keyed.end());
  for (size_t first = 0; first < keyed.size();) {
    size_t last = first + 1;
    while (last < keyed.size() && keyed[last].key == keyed[first].key) ++last;
    if (last - first > 1) use(std::span<const KeyedRow>(keyed).subspan(first, last - first));
    first = last;
  }
}

void check(bool holds, const std::string& message) {
  if (!holds) throw EngineError("bad_option", message);
}

}  // namespace

NearDuplicates::NearDuplicates(const NearDuplicateOptions& options) : options_(options) {
  check(options.ngram >= 1 && options.ngram <= 100, "ngram must be from 1 to 100 words");
  check(options.permutations >= 1 && options.permutations <= 1024, "permutations must be from 1 to 1024");
  check(options.threshold > 0.0 && options.threshold <= 1.0, "threshold must be above 0 and at most 1");
  check(options.bands >= 0 && options.bands <= options.permutations,
        "bands must be at most permutations, or 0 for the number that fits the threshold");
  shape_ = options.bands == 0 ? best_bands(options.permutations, options.threshold)
                              : BandShape{options.bands, options.permutations / options.bands};
  permutations_ = draw_permutations(shape_.bands * shape_.rows, options.seed);
  pool_ = make_thread_pool(options.threads);
  exec_.pool = pool_.get();
  keys_.resize(static_cast<size_t>(shape_.bands));
}

void NearDuplicates::add(std::span<const std::string_view> texts) {
  if (searched_) throw EngineError("wrong_state", "no row can be added once candidates were asked for");
  const size_t before = keys_[0].size();
  check(before + texts.size() <= static_cast<size_t>(std::numeric_limits<int32_t>::max()),
        "near-duplicates are sought among at most 2147483647 rows");
  for (auto& keys : keys_) keys.resize(before + texts.size());
  const auto rows = static_cast<size_t>(shape_.rows);
  parallel_for(exec_, static_cast<int64_t>(texts.size()), row_grain, [&](int64_t first, int64_t last) {
    std::vector<uint32_t> hashes;
    std::vector<uint32_t> minima(permutations_.a.size());
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
      // The permutations act on 32 bits of a shingle's hash; that two shingles of a pair share these but not all 64 has a
      // chance of about 1e-5 and only makes a candidate.
      const std::vector<uint64_t> shingles = shingle_hashes(texts[i], options_.ngram);
      hashes.assign(shingles.begin(), shingles.end());
      minhash_minima(minima.data(), hashes.data(), static_cast<int64_t>(hashes.size()), permutations_.a.data(),
                     permutations_.b.data(), static_cast<int64_t>(minima.size()));
      for (size_t band = 0; band < keys_.size(); ++band) {
        const uint64_t key = xxh64(minima.data() + band * rows, rows * sizeof(uint32_t));
        keys_[band][before + i] = shingles.empty() ? no_words : std::min(key, no_words - 1);
      }
    }
  });
}

const NearDuplicates::Candidates& NearDuplicates::find_candidates() {
  if (searched_) return candidates_;
  searched_ = true;
  const size_t rows = keys_[0].size();
  Forest forest(rows);
  std::mutex forest_mutex;
  parallel_for(exec_, shape_.bands, 1, [&](int64_t first, int64_t last) {
    std::vector<KeyedRow> keyed;
    std::vector<std::pair<int32_t, int32_t>> links;
    for (auto band = static_cast<size_t>(first); band < static_cast<size_t>(last); ++band) {
      keyed.clear();
      links.clear();
      for (size_t row = 0; row < rows; ++row) {
        const uint64_t key = keys_[band][row];
        if (key != no_words) keyed.push_back({key, static_cast<int32_t>(row)});
      }
      for_equal_keys(keyed, [&](std::span<const KeyedRow> run) {
        for (const KeyedRow& one : run.subspan(1)) links.emplace_back(run[0].row, one.row);
      });
      const std::lock_guard lock(forest_mutex);
      for (const auto& [a, b] : links) forest.unite(a, b);
    }
  });

  std::vector<int32_t> size_of_root(rows);
  for (size_t row = 0; row < rows; ++row) ++size_of_root[static_cast<size_t>(forest.root(static_cast<int32_t>(row)))];
  // A root is the least row of its group, so a pass in row order meets it first and places the whole group.
  place_.assign(rows, -1);
  std::vector<int32_t> next(rows);
  int32_t placed = 0;
  for (size_t row = 0; row < rows; ++row) {
    const auto root = static_cast<size_t>(forest.root(static_cast<int32_t>(row)));
    if (size_of_root[root] < 2) continue;
    if (root == row) {
      next[root] = placed;
      candidates_.offsets.push_back(placed += size_of_root[root]);
    }
    place_[row] = next[root]++;
  }
  candidates_.rows.resize(static_cast<size_t>(placed));
  for (size_t row = 0; row < rows; ++row) {
    if (place_[row] >= 0) candidates_.rows[static_cast<size_t>(place_[row])] = static_cast<int32_t>(row);
  }
  sets_.resize(static_cast<size_t>(placed));
  return candidates_;
}

void NearDuplicates::load(std::span<const int32_t> rows, std::span<const std::string_view> texts) {
  if (!searched_) throw EngineError("wrong_state", "texts are loaded for candidates: ask for these first");
  check(rows.size() == texts.size(), "rows and texts must be of one length");
  for (const int32_t row : rows) {
    check(row >= 0 && std::cmp_less(row, place_.size()) && place_[static_cast<size_t>(row)] >= 0,
          "row " + std::to_string(row) + " is no candidate");
  }
  parallel_for(exec_, static_cast<int64_t>(rows.size()), row_grain, [&](int64_t first, int64_t last) {
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
      sets_[static_cast<size_t>(place_[static_cast<size_t>(rows[i])])] = shingle_set(texts[i], options_.ngram);
    }
  });
  for (const int32_t row : rows) loaded_.push_back(place_[static_cast<size_t>(row)]);
}

std::vector<NearDuplicate> NearDuplicates::verify() {
  std::sort(loaded_.begin(), loaded_.end());
  std::vector<std::pair<size_t, size_t>> groups;  // places
  for (size_t i = 0; i < loaded_.size();) {
    const auto after = std::upper_bound(candidates_.offsets.begin(), candidates_.offsets.end(), loaded_[i]);
    const auto first = static_cast<size_t>(*(after - 1)), last = static_cast<size_t>(*after);
    for (size_t place = first; place < last; ++place) {
      if (sets_[place].empty()) {
        throw EngineError("wrong_state", "row " + std::to_string(candidates_.rows[place]) +
                                             " is not loaded, but others of its group are");
      }
    }
    groups.emplace_back(first, last);
    while (i < loaded_.size() && std::cmp_less(loaded_[i], last)) ++i;
  }
  std::vector<std::vector<NearDuplicate>> lost(groups.size());
  parallel_for(exec_, static_cast<int64_t>(groups.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto g = static_cast<size_t>(begin); g < static_cast<size_t>(end); ++g) {
      const auto [first, last] = groups[g];
      lost[g] = verify_group(std::span(candidates_.rows).subspan(first, last - first),
                             std::span(sets_).subspan(first, last - first));
    }
  });
  for (const auto& [first, last] : groups) {
    for (size_t place = first; place < last; ++place) std::vector<uint64_t>().swap(sets_[place]);
  }
  loaded_.clear();
  std::vector<NearDuplicate> all;
  for (const auto& one : lost) all.insert(all.end(), one.begin(), one.end());
  return all;
}

std::vector<NearDuplicate> NearDuplicates::verify_group(std::span<const int32_t> rows,
                                                        std::span<const std::vector<uint64_t>> sets) const {
  const auto similarity = [&](int32_t i, int32_t j) {
    return jaccard(sets[static_cast<size_t>(i)], sets[static_cast<size_t>(j)]);
  };
  const auto alike = [&](int32_t i, int32_t j) {
    const auto [small, large] = std::minmax({sets[static_cast<size_t>(i)].size(), sets[static_cast<size_t>(j)].size()});
    // No similarity is above the ratio of the sizes.
    if (static_cast<double>(small) / static_cast<double>(large) < options_.threshold) return false;
    return similarity(i, j) >= options_.threshold;
  };

  // Every pair that shares a band is judged unless its rows are in one cluster already, which changes no cluster.
  Forest forest(rows.size());
  std::vector<KeyedRow> keyed;
  for (const auto& keys : keys_) {
    keyed.clear();
    for (size_t i = 0; i < rows.size(); ++i) {
      keyed.push_back({keys[static_cast<size_t>(rows[i])], static_cast<int32_t>(i)});
    }
    for_equal_keys(keyed, [&](std::span<const KeyedRow> run) {
      std::vector<std::vector<int32_t>> clusters;  // the run so far
      for (const KeyedRow& one : run) {
        std::vector<int32_t> own{one.row};
        std::erase_if(clusters, [&](const std::vector<int32_t>& cluster) {
          bool joined = forest.root(cluster[0]) == forest.root(one.row);
          for (size_t i = 0; i < cluster.size() && !joined; ++i) {
            if ((joined = alike(cluster[i], one.row))) forest.unite(cluster[i], one.row);
          }
          if (joined) own.insert(own.end(), cluster.begin(), cluster.end());
          return joined;
        });
        clusters.push_back(std::move(own));
      }
    });
  }

  std::vector<std::vector<int32_t>> members(rows.size());  // by root, rising
  std::vector<NearDuplicate> lost;
  for (int32_t i = 0; std::cmp_less(i, rows.size()); ++i) members[static_cast<size_t>(forest.root(i))].push_back(i);
  for (int32_t i = 0; std::cmp_less(i, rows.size()); ++i) {
    const int32_t kept = forest.root(i);
    if (kept == i) continue;
    int32_t linked = kept;
    double linked_similarity = similarity(kept, i);
    const double kept_similarity = linked_similarity;
    for (size_t m = 1; linked_similarity < options_.threshold; ++m) {
      linked = members[static_cast<size_t>(kept)][m];
      // A row is like itself but is no reason for itself; another of the cluster is alike, else it would not be here.
      linked_similarity = linked == i ? 0.0 : similarity(linked, i);
    }
    lost.push_back({rows[static_cast<size_t>(i)], rows[static_cast<size_t>(kept)], kept_similarity,
                    rows[static_cast<size_t>(linked)], linked_similarity});
  }
  return lost;
}

}  // namespace caravan
