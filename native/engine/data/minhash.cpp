#include "engine/data/minhash.h"

#include <algorithm>

#include "engine/data/unicode.h"
#include "engine/data/xxh64.h"
#include "kernels/minhash.h"

namespace caravan {

namespace {

/// Words, one space between them, and where each begins; the last entry is one past the end and its missing space.
struct Words {
  std::string text;
  std::vector<size_t> begins;

  void start() {
    if (!text.empty()) text.push_back(' ');
    begins.push_back(text.size());
  }
  size_t count() const { return begins.size() - 1; }
  std::string_view range(size_t first, size_t last) const {
    return std::string_view(text).substr(begins[first], begins[last] - 1 - begins[first]);
  }
};

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
}

/// Han, hiragana and katakana.
bool stands_alone(char32_t c) {
  return (c >= 0x3041 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x3FFFF);
}

/// Whether a code point belongs to a word: \w without connectors such as the underscore.
bool in_word(uint8_t classes) {
  return (classes & (class_letter | class_number)) != 0 ||
         ((classes & class_word) != 0 && (classes & class_punctuation) == 0);
}

/// The letter or digit in lower case, 0 for every other ASCII character.
struct AsciiWords {
  char of[128] = {};
  constexpr AsciiWords() {
    for (char c = '0'; c <= '9'; ++c) of[static_cast<int>(c)] = c;
    for (char c = 'a'; c <= 'z'; ++c) {
      of[static_cast<int>(c)] = c;
      of[c - 'a' + 'A'] = c;
    }
  }
};
constexpr AsciiWords ascii_words;

void split_ascii(std::string_view text, Words& words) {
  bool inside = false;
  for (const char c : text) {
    const char kept = ascii_words.of[static_cast<unsigned char>(c)];
    if (kept == 0) {
      inside = false;
      continue;
    }
    if (!inside) words.start();
    inside = true;
    words.text.push_back(kept);
  }
}

void split_unicode(std::string_view raw, Words& words) {
  const std::string text = lowercase(may_change_under_nfc(raw) ? normalize(raw, NormalForm::nfc) : std::string(raw));
  const uint8_t* const classes = code_point_classes();
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const DecodedCodePoint c = decode_utf8(text.data() + at);
    if (in_word(classes[c.code_point])) {
      const bool alone = stands_alone(c.code_point);
      if (!inside || alone) words.start();
      inside = !alone;
      words.text.append(text, at, c.size);
    } else {
      inside = false;
    }
    at += c.size;
  }
}

Words split(std::string_view text) {
  Words words;
  words.text.reserve(text.size() + text.size() / 8);
  words.begins.reserve(text.size() / 5 + 2);
  if (is_ascii(text)) {
    split_ascii(text, words);
  } else {
    split_unicode(text, words);
  }
  words.begins.push_back(words.text.size() + 1);
  return words;
}

/// x^n by products alone: the same on every machine, as pow is not.
double power(double x, int n) {
  double result = 1.0;
  for (; n > 0; n /= 2, x *= x) {
    if (n % 2 == 1) result *= x;
  }
  return result;
}

uint64_t splitmix64(uint64_t& state) {
  uint64_t z = state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

}  // namespace

std::string words_of(std::string_view text) { return split(text).text; }

std::vector<uint64_t> shingle_hashes(std::string_view text, int ngram) {
  const Words words = split(text);
  const size_t n = std::min(static_cast<size_t>(ngram), words.count());
  std::vector<uint64_t> hashes;
  if (n == 0) return hashes;
  hashes.reserve(words.count() - n + 1);
  for (size_t first = 0; first + n <= words.count(); ++first) {
    const std::string_view shingle = words.range(first, first + n);
    hashes.push_back(xxh64(shingle.data(), shingle.size()));
  }
  return hashes;
}

std::vector<uint64_t> shingle_set(std::string_view text, int ngram) {
  std::vector<uint64_t> set = shingle_hashes(text, ngram);
  std::sort(set.begin(), set.end());
  set.erase(std::unique(set.begin(), set.end()), set.end());
  set.shrink_to_fit();
  return set;
}

double jaccard(std::span<const uint64_t> a, std::span<const uint64_t> b) {
  size_t i = 0, j = 0, shared = 0;
  while (i < a.size() && j < b.size()) {
    const uint64_t x = a[i], y = b[j];
    shared += x == y;
    i += x <= y;
    j += y <= x;
  }
  const size_t together = a.size() + b.size() - shared;
  return together == 0 ? 0.0 : static_cast<double>(shared) / static_cast<double>(together);
}

double candidate_probability(double similarity, BandShape shape) {
  return 1.0 - power(1.0 - power(similarity, shape.rows), shape.bands);
}

BandShape best_bands(int permutations, double threshold) {
  constexpr int points = 500;  // of each midpoint sum
  BandShape best{1, permutations};
  double least = 2.0;
  for (int bands = 1; bands <= permutations; ++bands) {
    for (int rows = 1; rows <= permutations / bands; ++rows) {
      double positives = 0.0, negatives = 0.0;
      for (int i = 0; i < points; ++i) {
        const double place = (i + 0.5) / points;
        positives += candidate_probability(threshold * place, {bands, rows});
        negatives += 1.0 - candidate_probability(threshold + (1.0 - threshold) * place, {bands, rows});
      }
      const double error = 0.5 * (positives * threshold + negatives * (1.0 - threshold)) / points;
      if (error < least) {
        least = error;
        best = {bands, rows};
      }
    }
  }
  return best;
}

Permutations draw_permutations(int count, uint64_t seed) {
  Permutations drawn;
  for (int i = 0; i < count; ++i) {
    drawn.a.push_back(1 + splitmix64(seed) % (minhash_prime - 1));
    drawn.b.push_back(splitmix64(seed) % minhash_prime);
  }
  return drawn;
}

}  // namespace caravan
