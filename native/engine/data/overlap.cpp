#include "engine/data/overlap.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string>
#include <tuple>
#include <utility>

#include "engine/data/minhash.h"
#include "engine/data/xxh64.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

constexpr int64_t row_grain = 16;

/// Words with one space between them, and where each begins; the last entry is one past the end and its missing space.
struct Words {
  std::string text;
  std::vector<size_t> begins;

  explicit Words(std::string_view raw) : text(words_of(raw)) {
    if (!text.empty()) begins.push_back(0);
    for (size_t at = text.find(' '); at != std::string::npos; at = text.find(' ', at + 1)) begins.push_back(at + 1);
    begins.push_back(text.size() + 1);
  }
  int count() const { return static_cast<int>(begins.size()) - 1; }
  uint64_t hash(int first, int last) const {
    const size_t from = begins[static_cast<size_t>(first)];
    return xxh64(text.data() + from, begins[static_cast<size_t>(last)] - 1 - from);
  }
};

void check(bool holds, const std::string& message) {
  if (!holds) throw EngineError("bad_option", message);
}

/// Words that the stretches [first, last) cover together, and the longest that they form. Sorts them.
std::pair<int32_t, int32_t> measure(std::vector<std::pair<int32_t, int32_t>>& stretches) {
  std::sort(stretches.begin(), stretches.end());
  int32_t covered = 0, longest = 0, first = 0, last = -1;
  for (const auto& [from, to] : stretches) {
    if (from > last) {
      if (last >= 0) covered += last - first;
      first = from;
    }
    last = std::max(last, to);
    longest = std::max(longest, last - first);
  }
  return {covered + std::max(0, last - first), longest};
}

}  // namespace

bool OverlapSearch::Known::operator<(const Known& other) const {
  return std::tie(hash, part, place) < std::tie(other.hash, other.part, other.place);
}

OverlapSearch::OverlapSearch(const OverlapOptions& options) : options_(options) {
  check(options.ngram >= 1 && options.ngram <= 100, "ngram must be from 1 to 100 words");
  check(options.floor >= 1 && options.floor <= options.ngram, "floor must be at least 1 and at most ngram");
  pool_ = make_thread_pool(options.threads);
  exec_.pool = pool_.get();
}

std::vector<int32_t> OverlapSearch::add(std::span<const std::string_view> parts) {
  if (ready_) throw EngineError("wrong_state", "no part can be added once texts were scanned");
  check(words_.size() + parts.size() <= static_cast<size_t>(std::numeric_limits<int32_t>::max()),
        "at most 2147483647 parts can be sought");
  std::vector<int32_t> counts;
  for (const std::string_view part : parts) {
    const Words words(part);
    const auto index = static_cast<int32_t>(words_.size());
    const int count = words.count();
    counts.push_back(count);
    words_.push_back(count);
    if (count == 0) continue;
    wholes_.push_back({words.hash(0, count), index, -1});
    if (count < options_.floor) continue;
    const int n = std::min(options_.ngram, count);
    lengths_.push_back(n);
    for (int first = 0; first + n <= count; ++first) {
      ngrams_.push_back({words.hash(first, first + n), index, first});
      begin_hashes_.push_back(words.hash(first, first + options_.floor));
    }
  }
  return counts;
}

void OverlapSearch::prepare() {
  ready_ = true;
  std::sort(ngrams_.begin(), ngrams_.end());
  std::sort(wholes_.begin(), wholes_.end());
  std::sort(lengths_.begin(), lengths_.end());
  lengths_.erase(std::unique(lengths_.begin(), lengths_.end()), lengths_.end());
  // 32 places for each: one text place in 32 is looked at in vain.
  beginnings_.assign(std::bit_ceil(std::max<size_t>(begin_hashes_.size() * 32, 64)), false);
  for (const uint64_t hash : begin_hashes_) beginnings_[hash & (beginnings_.size() - 1)] = true;
  std::vector<uint64_t>().swap(begin_hashes_);
}

std::span<const OverlapSearch::Known> OverlapSearch::find(const std::vector<Known>& known, uint64_t hash) const {
  const auto first =
      std::partition_point(known.begin(), known.end(), [&](const Known& one) { return one.hash < hash; });
  auto last = first;
  while (last != known.end() && last->hash == hash) ++last;
  return {first, last};
}

std::vector<Overlap> OverlapSearch::scan(std::span<const std::string_view> texts) {
  if (!ready_) prepare();
  std::vector<std::vector<Overlap>> found(texts.size());
  parallel_for(exec_, static_cast<int64_t>(texts.size()), row_grain, [&](int64_t first, int64_t last) {
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i)
      scan_text(texts[i], static_cast<int32_t>(i), found[i]);
  });
  std::vector<Overlap> all;
  for (const auto& one : found) all.insert(all.end(), one.begin(), one.end());
  return all;
}

void OverlapSearch::scan_text(std::string_view text, int32_t index, std::vector<Overlap>& found) const {
  const Words words(text);
  const int count = words.count();
  if (count == 0) return;
  struct Stretch {
    int32_t part;
    std::pair<int32_t, int32_t> words;  // [first, last) of the part
  };
  std::vector<Stretch> stretches;
  for (int first = 0; first + options_.floor <= count; ++first) {
    if (!beginnings_[words.hash(first, first + options_.floor) & (beginnings_.size() - 1)]) continue;
    for (const int n : lengths_) {
      if (first + n > count) break;
      for (const Known& known : find(ngrams_, words.hash(first, first + n))) {
        stretches.push_back({known.part, {known.place, known.place + n}});
      }
    }
  }
  std::vector<int32_t> equal;
  for (const Known& known : find(wholes_, words.hash(0, count))) equal.push_back(known.part);
  std::stable_sort(stretches.begin(), stretches.end(),
                   [](const Stretch& a, const Stretch& b) { return a.part < b.part; });
  std::vector<std::pair<int32_t, int32_t>> own;
  for (size_t i = 0; i < stretches.size();) {
    const int32_t part = stretches[i].part;
    own.clear();
    for (; i < stretches.size() && stretches[i].part == part; ++i) own.push_back(stretches[i].words);
    if (std::find(equal.begin(), equal.end(), part) != equal.end()) continue;
    const auto [covered, longest] = measure(own);
    found.push_back({index, part, false, covered, longest});
  }
  for (const int32_t part : equal) found.push_back({index, part, true, count, count});
  std::sort(found.begin(), found.end(), [](const Overlap& a, const Overlap& b) { return a.part < b.part; });
}

}  // namespace caravan
