// Near-duplicates: planted pairs against the arithmetic of the bands, clusters against all pairs, any thread count.
#include "engine/data/near_duplicates.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "doctest/doctest.h"
#include "engine/data/xxh64.h"
#include "engine/platform/error.h"
#include "kernels/minhash.h"

using namespace caravan;

namespace {

using Texts = std::vector<std::string>;

std::vector<std::string_view> views(const Texts& texts) { return {texts.begin(), texts.end()}; }

/// All at once, or `batch` rows at a time.
std::vector<NearDuplicate> find(const Texts& texts, const NearDuplicateOptions& options, size_t batch = 0,
                                std::vector<int32_t>* candidates = nullptr) {
  NearDuplicates search(options);
  const auto all = views(texts);
  const size_t step = batch == 0 ? all.size() : batch;
  for (size_t first = 0; first < all.size(); first += step) {
    search.add(std::span(all).subspan(first, std::min(step, all.size() - first)));
  }
  CHECK(search.rows() == static_cast<int64_t>(texts.size()));
  const auto& groups = search.find_candidates();
  if (candidates != nullptr) *candidates = groups.rows;
  std::vector<NearDuplicate> lost;
  for (size_t g = 0; g + 1 < groups.offsets.size(); ++g) {
    const auto rows = std::span(groups.rows)
                          .subspan(static_cast<size_t>(groups.offsets[g]),
                                   static_cast<size_t>(groups.offsets[g + 1] - groups.offsets[g]));
    std::vector<std::string_view> of_group;
    for (const int32_t row : rows) of_group.push_back(all[static_cast<size_t>(row)]);
    search.load(rows, of_group);
    if (batch == 0) continue;
    const auto some = search.verify();
    lost.insert(lost.end(), some.begin(), some.end());
  }
  const auto rest = search.verify();
  lost.insert(lost.end(), rest.begin(), rest.end());
  return lost;
}

auto fields(const std::vector<NearDuplicate>& lost) {
  std::vector<std::tuple<int32_t, int32_t, double, int32_t, double>> all;
  for (const auto& one : lost) all.emplace_back(one.row, one.kept, one.jaccard, one.linked, one.linked_jaccard);
  return all;
}

std::string word(char kind, uint64_t number) { return std::string(1, kind).append(std::to_string(number)); }

std::string words(std::mt19937_64& random, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text.append(word('w', random())).push_back(' ');
  return text;
}

/// Texts 2i and 2i + 1 share a beginning of random words, so that `shared` of their 2 * `shingles` - `shared` shingles are
/// common.
Texts planted_pairs(std::mt19937_64& random, int pairs, int shingles, int shared) {
  constexpr int ngram = 5;
  Texts texts;
  for (int i = 0; i < pairs; ++i) {
    const std::string beginning = words(random, shared + ngram - 1);
    for (int side = 0; side < 2; ++side) texts.push_back(beginning + words(random, shingles - shared));
  }
  return texts;
}

/// Variants of a few texts, with one to several words changed: chains, large clusters and rows just below the threshold.
Texts variants(int count) {
  std::mt19937_64 random(11);
  std::vector<Texts> bases(8);
  for (auto& base : bases) {
    for (int i = 0; i < 60; ++i) base.push_back(word('v', random() % 5000));
  }
  Texts texts;
  for (int i = 0; i < count; ++i) {
    Texts& base = bases[random() % bases.size()];
    Texts own = base;
    for (auto changes = random() % 4; changes > 0; --changes) own[random() % own.size()] = word('x', random());
    if (random() % 2 == 0) base = own;  // drifts: the ends of a chain are far apart
    std::string text;
    for (const auto& one : own) text.append(one).push_back(' ');
    texts.push_back(text);
  }
  return texts;
}

}  // namespace

TEST_CASE("planted pairs are found as often as the bands' arithmetic says, and none below the threshold") {
  struct Tool {
    NearDuplicateOptions options;
    BandShape shape;
  };
  constexpr int pairs = 1500, shingles = 190;
  for (const Tool& tool : {Tool{{.permutations = 240, .threshold = 0.7}, {24, 10}},
                           Tool{{.permutations = 256, .threshold = 0.7}, {25, 10}},
                           Tool{{.permutations = 112, .bands = 14, .threshold = 0.72}, {14, 8}}}) {
    std::mt19937_64 random(5);
    for (const double target : {0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95}) {
      const int shared = static_cast<int>(std::lround(2 * shingles * target / (1 + target)));
      const double similarity = static_cast<double>(shared) / (2 * shingles - shared);
      const Texts texts = planted_pairs(random, pairs, shingles, shared);
      NearDuplicates search(tool.options);
      REQUIRE(search.shape().bands == tool.shape.bands);
      REQUIRE(search.shape().rows == tool.shape.rows);
      std::vector<int32_t> candidates;
      const auto lost = find(texts, tool.options, 0, &candidates);
      // Texts of different pairs share no word, so every group of candidates is a planted pair.
      const double found = static_cast<double>(candidates.size()) / 2 / pairs;
      const double predicted = candidate_probability(similarity, tool.shape);
      const double error = std::sqrt(std::max(predicted * (1 - predicted), 1.0 / pairs) / pairs);
      CAPTURE(similarity);
      CAPTURE(predicted);
      CAPTURE(found);
      CHECK(std::abs(found - predicted) < 4 * error);
      if (similarity >= tool.options.threshold) {
        CHECK(lost.size() * 2 == candidates.size());
      } else {
        CHECK(lost.empty());
      }
      for (const NearDuplicate& one : lost) {
        CHECK(one.row % 2 == 1);
        CHECK(one.kept == one.row - 1);
        CHECK(one.linked == one.kept);
        REQUIRE(one.jaccard == similarity);
        REQUIRE(one.linked_jaccard == similarity);
      }
    }
  }
}

TEST_CASE("clusters are those of all pairs that share a band and are alike") {
  const Texts texts = variants(400);
  const NearDuplicateOptions options{.permutations = 128, .threshold = 0.7, .seed = 3};
  const BandShape shape = best_bands(128, 0.7);
  const auto count = static_cast<size_t>(shape.bands * shape.rows);
  const Permutations drawn = draw_permutations(static_cast<int>(count), 3);
  std::vector<std::vector<uint32_t>> signatures;
  std::vector<std::vector<uint64_t>> sets;
  for (const auto& text : texts) {
    sets.push_back(shingle_set(text, 5));
    std::vector<uint32_t> minima(count, 0xffffffffu);
    for (const uint64_t h : sets.back()) {
      for (size_t i = 0; i < count; ++i) {
        minima[i] = std::min(minima[i], minhash_permute(static_cast<uint32_t>(h), drawn.a[i], drawn.b[i]));
      }
    }
    signatures.push_back(minima);
  }
  const size_t n = texts.size();
  std::vector<size_t> cluster(n);
  std::iota(cluster.begin(), cluster.end(), size_t{0});
  const auto rows = static_cast<size_t>(shape.rows);
  size_t alike = 0;
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i + 1; j < n; ++j) {
      bool meet = false;
      for (size_t band = 0; band < static_cast<size_t>(shape.bands); ++band) {
        const auto from = static_cast<std::ptrdiff_t>(band * rows), to = from + static_cast<std::ptrdiff_t>(rows);
        meet =
            meet || std::equal(signatures[i].begin() + from, signatures[i].begin() + to, signatures[j].begin() + from);
      }
      if (!meet || jaccard(sets[i], sets[j]) < 0.7) continue;
      ++alike;
      const size_t low = std::min(cluster[i], cluster[j]), high = std::max(cluster[i], cluster[j]);
      for (auto& one : cluster) one = one == high ? low : one;
    }
  }
  REQUIRE(alike > 100);
  std::map<int32_t, int32_t> expected;
  for (size_t i = 0; i < n; ++i) {
    if (cluster[i] != i) expected[static_cast<int32_t>(i)] = static_cast<int32_t>(cluster[i]);
  }
  std::map<int32_t, int32_t> found;
  size_t chained = 0;
  for (const auto& one : find(texts, options)) {
    found[one.row] = one.kept;
    const auto& set = sets[static_cast<size_t>(one.row)];
    CHECK(one.jaccard == jaccard(set, sets[static_cast<size_t>(one.kept)]));
    CHECK(one.linked_jaccard == jaccard(set, sets[static_cast<size_t>(one.linked)]));
    CHECK(one.linked_jaccard >= 0.7);
    CHECK(one.linked != one.row);
    CHECK(cluster[static_cast<size_t>(one.linked)] == static_cast<size_t>(one.kept));
    CHECK((one.linked == one.kept) == (one.jaccard >= 0.7));
    chained += one.linked != one.kept;
  }
  CHECK(found == expected);
  CHECK(chained > 0);
}

TEST_CASE("the result depends neither on threads nor on how rows are handed in") {
  const Texts texts = variants(500);
  NearDuplicateOptions options{.permutations = 112, .bands = 14, .threshold = 0.72, .threads = 1};
  const auto alone = fields(find(texts, options));
  CHECK(alone.size() > 100);
  for (const int threads : {2, 3, 8}) {
    options.threads = threads;
    CHECK(fields(find(texts, options)) == alone);
    CHECK(fields(find(texts, options, 7)) == alone);
  }
  options.seed = 43;
  CHECK(fields(find(texts, options)) != alone);
}

TEST_CASE("short, wordless and equal rows") {
  const Texts texts{"What is 2?", "what IS, 2", "What is 3?", "!!!", "???", "", "What is 2?"};
  const auto lost = find(texts, {});
  // Rows without a word are never alike; rows of fewer words than a shingle are when all their words are.
  REQUIRE(lost.size() == 2);
  CHECK(fields(lost) == fields({{1, 0, 1.0, 0, 1.0}, {6, 0, 1.0, 0, 1.0}}));
  CHECK(find({}, {}).empty());
}

TEST_CASE("wrong options and wrong order are refused") {
  const auto refused = [](const NearDuplicateOptions& options, const std::string& field) {
    try {
      NearDuplicates search(options);
      FAIL("accepted");
    } catch (const EngineError& error) {
      CHECK(error.code == "bad_option");
      CHECK(std::string(error.what()).find(field) != std::string::npos);
    }
  };
  refused({.ngram = 0}, "ngram");
  refused({.permutations = 0}, "permutations");
  refused({.threshold = 0.0}, "threshold");
  refused({.threshold = 1.5}, "threshold");
  refused({.permutations = 8, .bands = 9}, "bands");

  const auto code = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const EngineError& error) {
      return error.code;
    }
    return "none";
  };
  const Texts texts{"one two three four five six", "one two three four five six", "quite another text of six words"};
  const auto all = views(texts);
  NearDuplicates search({.threads = 1});
  search.add(all);
  const std::vector<int32_t> first{0}, lonely{2};
  CHECK(code([&] { search.load(first, std::span(all).first(1)); }) == "wrong_state");
  CHECK(search.find_candidates().rows == std::vector<int32_t>{0, 1});
  CHECK(code([&] { search.add(all); }) == "wrong_state");
  CHECK(code([&] { search.load(lonely, std::span(all).first(1)); }) == "bad_option");
  search.load(first, std::span(all).first(1));
  CHECK(code([&] { search.verify(); }) == "wrong_state");
  const std::vector<int32_t> second{1};
  search.load(second, std::span(all).subspan(1, 1));
  CHECK(search.verify().size() == 1);
}
