// UTF-8 and the Unicode algorithms (UAX 15) over the generated tables, which are unfolded once into flat arrays.
#include "engine/data/unicode.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/data/unicode_tables.h"

namespace caravan {
namespace {

constexpr size_t code_point_count = 0x110000;
constexpr uint32_t code_point_mask = 0x1FFFFF;

// Hangul syllables decompose and compose by arithmetic (Unicode standard, 3.12).
constexpr char32_t hangul_s = 0xAC00, hangul_l = 0x1100, hangul_v = 0x1161, hangul_t = 0x11A7;
constexpr uint32_t hangul_v_count = 21, hangul_t_count = 28, hangul_l_count = 19;
constexpr uint32_t hangul_n_count = hangul_v_count * hangul_t_count;
constexpr uint32_t hangul_s_count = hangul_l_count * hangul_n_count;

std::vector<uint8_t> unfold_changes(const uint32_t* changes, size_t size) {
  std::vector<uint8_t> values(code_point_count, 0);
  for (size_t i = 0; i < size; ++i) {
    const size_t first = changes[i] >> 8;
    const size_t end = i + 1 < size ? changes[i + 1] >> 8 : code_point_count;
    std::fill(values.begin() + first, values.begin() + end, static_cast<uint8_t>(changes[i] & 0xFF));
  }
  return values;
}

struct NormalizationTables {
  std::vector<uint8_t> combining;  // (0x110000) canonical combining class
  std::vector<uint8_t> unstable;   // (0x110000) 1: NFC may change a text because of this code point
  std::unordered_map<char32_t, std::pair<char32_t, char32_t>> canonical;  // second is 0 for a singleton
  std::unordered_map<char32_t, const uint32_t*> compatibility;            // at the row: code point | length << 24
  std::unordered_map<uint64_t, char32_t> composites;                      // first << 32 | second

  NormalizationTables()
      : combining(unfold_changes(unicode_tables::combining_changes, unicode_tables::combining_changes_size)),
        unstable(code_point_count, 0) {
    for (size_t c = 0; c < code_point_count; ++c) unstable[c] = combining[c] != 0;
    for (size_t i = 0; i < unicode_tables::canonical_rows_size; i += 3) {
      const uint32_t* row = unicode_tables::canonical_rows + i;
      const char32_t code_point = row[0] & code_point_mask;
      canonical.emplace(code_point, std::pair<char32_t, char32_t>(row[1], row[2]));
      if (row[0] >> 31) {
        composites.emplace(static_cast<uint64_t>(row[1]) << 32 | row[2], code_point);
        unstable[row[2]] = 1;
      } else {
        unstable[code_point] = 1;
      }
    }
    for (char32_t c = hangul_v; c < hangul_v + hangul_v_count; ++c) unstable[c] = 1;
    for (char32_t c = hangul_t + 1; c < hangul_t + hangul_t_count; ++c) unstable[c] = 1;
    for (size_t i = 0; i < unicode_tables::compatibility_rows_size;) {
      const uint32_t* row = unicode_tables::compatibility_rows + i;
      compatibility.emplace(row[0] & 0xFFFFFF, row);
      i += 1 + (row[0] >> 24);
    }
  }
};

const NormalizationTables& normalization_tables() {
  static const NormalizationTables tables;
  return tables;
}

using CodePoints = std::vector<char32_t>;

void append_canonical(const NormalizationTables& tables, char32_t c, CodePoints& out) {
  if (c >= hangul_s && c < hangul_s + hangul_s_count) {
    const uint32_t index = c - hangul_s;
    out.push_back(hangul_l + index / hangul_n_count);
    out.push_back(hangul_v + index % hangul_n_count / hangul_t_count);
    if (index % hangul_t_count != 0) out.push_back(hangul_t + index % hangul_t_count);
    return;
  }
  const auto found = c < 0xC0 ? tables.canonical.end() : tables.canonical.find(c);
  if (found == tables.canonical.end()) {
    out.push_back(c);
    return;
  }
  append_canonical(tables, found->second.first, out);
  if (found->second.second != 0) append_canonical(tables, found->second.second, out);
}

void append_decomposed(const NormalizationTables& tables, char32_t c, bool compatible, CodePoints& out) {
  if (compatible && c >= 0xA0) {
    const auto found = tables.compatibility.find(c);
    if (found != tables.compatibility.end()) {
      const uint32_t* row = found->second;
      out.insert(out.end(), row + 1, row + 1 + (row[0] >> 24));
      return;
    }
  }
  append_canonical(tables, c, out);
}

// Stable, so marks of one class keep their order.
void order_combining_marks(const NormalizationTables& tables, CodePoints& text) {
  for (size_t i = 0; i < text.size();) {
    if (tables.combining[text[i]] == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < text.size() && tables.combining[text[end]] != 0) ++end;
    if (end - i > 1) {
      std::stable_sort(text.begin() + i, text.begin() + end,
                       [&](char32_t a, char32_t b) { return tables.combining[a] < tables.combining[b]; });
    }
    i = end;
  }
}

std::optional<char32_t> compose_pair(const NormalizationTables& tables, char32_t first, char32_t second) {
  if (first >= hangul_l && first < hangul_l + hangul_l_count && second >= hangul_v &&
      second < hangul_v + hangul_v_count) {
    return hangul_s + ((first - hangul_l) * hangul_v_count + (second - hangul_v)) * hangul_t_count;
  }
  if (first >= hangul_s && first < hangul_s + hangul_s_count && (first - hangul_s) % hangul_t_count == 0 &&
      second > hangul_t && second < hangul_t + hangul_t_count) {
    return first + (second - hangul_t);
  }
  const auto found = tables.composites.find(static_cast<uint64_t>(first) << 32 | second);
  if (found == tables.composites.end()) return std::nullopt;
  return found->second;
}

void compose(const NormalizationTables& tables, CodePoints& text) {
  size_t kept = 0;
  size_t starter = SIZE_MAX;
  uint8_t last_class = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char32_t c = text[i];
    const uint8_t combining = tables.combining[c];
    const bool adjacent = starter != SIZE_MAX && starter + 1 == kept;
    if (starter != SIZE_MAX && (adjacent || last_class < combining)) {
      if (const auto composite = compose_pair(tables, text[starter], c)) {
        text[starter] = *composite;
        continue;
      }
    }
    if (combining == 0) starter = kept;
    last_class = combining;
    text[kept++] = c;
  }
  text.resize(kept);
}

void append_normalized(const NormalizationTables& tables, std::string_view text, NormalForm form, CodePoints& scratch,
                       std::string& out) {
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  scratch.clear();
  for (const char* at = text.data(); at != text.data() + text.size();) {
    const DecodedCodePoint decoded = decode_utf8(at);
    append_decomposed(tables, decoded.code_point, compatible, scratch);
    at += decoded.size;
  }
  order_combining_marks(tables, scratch);
  if (form == NormalForm::nfc || form == NormalForm::nfkc) compose(tables, scratch);
  for (const char32_t c : scratch) append_utf8(out, c);
}

// The end of the run of bytes below `limit` that starts at `at`.
inline const char* skip_bytes_below(const char* at, const char* end, unsigned char limit) {
  while (at != end && static_cast<unsigned char>(*at) < limit) ++at;
  return at;
}

// The size of the well-formed sequence at `s`, or 0 and in `ill_formed` the length of the maximal part to replace.
size_t well_formed_size(const unsigned char* s, size_t left, size_t& ill_formed) {
  ill_formed = 1;
  const unsigned char lead = s[0];
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned char low = 0x80, high = 0xBF;  // of the second byte: no overlong forms, no surrogates, not over 10FFFF
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < size; ++i) {
    if (i >= left || s[i] < low || s[i] > high) return 0;
    ill_formed = i + 1;
    low = 0x80;
    high = 0xBF;
  }
  return size;
}

}  // namespace

const uint8_t* code_point_classes() {
  static const std::vector<uint8_t> classes =
      unfold_changes(unicode_tables::class_changes, unicode_tables::class_changes_size);
  return classes.data();
}

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    const char bytes[] = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
    out.append(bytes, 2);
  } else if (c < 0x10000) {
    const char bytes[] = {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
                          static_cast<char>(0x80 | (c & 0x3F))};
    out.append(bytes, 3);
  } else {
    const char bytes[] = {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
                          static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
    out.append(bytes, 4);
  }
}

std::optional<size_t> find_invalid_utf8(std::string_view text) {
  const auto* s = reinterpret_cast<const unsigned char*>(text.data());
  for (size_t i = 0; i < text.size();) {
    uint64_t word;
    if (i + 8 <= text.size()) {
      std::memcpy(&word, s + i, 8);
      if ((word & 0x8080808080808080ull) == 0) {
        i += 8;
        continue;
      }
    }
    size_t ill_formed;
    const size_t size = well_formed_size(s + i, text.size() - i, ill_formed);
    if (size == 0) return i;
    i += size;
  }
  return std::nullopt;
}

std::string replace_invalid_utf8(std::string_view bytes) {
  if (!find_invalid_utf8(bytes)) return std::string(bytes);
  std::string out;
  out.reserve(bytes.size() + 8);
  const auto* s = reinterpret_cast<const unsigned char*>(bytes.data());
  for (size_t i = 0; i < bytes.size();) {
    size_t ill_formed;
    const size_t size = well_formed_size(s + i, bytes.size() - i, ill_formed);
    if (size == 0) {
      append_utf8(out, 0xFFFD);
      i += ill_formed;
    } else {
      out.append(bytes, i, size);
      i += size;
    }
  }
  return out;
}

bool may_change_under_nfc(std::string_view text) {
  const char* end = text.data() + text.size();
  const uint8_t* unstable = nullptr;
  // Every code point below U+0300 (lead byte below CC) is stable and a starter.
  for (const char* at = text.data(); (at = skip_bytes_below(at, end, 0xCC)) != end;) {
    if (unstable == nullptr) unstable = normalization_tables().unstable.data();
    const DecodedCodePoint decoded = decode_utf8(at);
    if (unstable[decoded.code_point]) return true;
    at += decoded.size;
  }
  return false;
}

std::string normalize(std::string_view text, NormalForm form) {
  if (text.empty()) return {};
  const NormalizationTables& tables = normalization_tables();
  std::string out;
  out.reserve(text.size() + 16);
  CodePoints scratch;
  if (form != NormalForm::nfc) {
    append_normalized(tables, text, form, scratch, out);
    return out;
  }
  // Only runs that begin with the last stable code point before an unstable one, and end before the next stable one,
  // can change: a stable code point is a starter that composes with nothing before it.
  const char* end = text.data() + text.size();
  const char* copied = text.data();
  const char* stable = text.data();
  for (const char* at = text.data(); at != end;) {
    DecodedCodePoint decoded = decode_utf8(at);
    if (!tables.unstable[decoded.code_point]) {
      stable = at;
      at += decoded.size;
      continue;
    }
    const char* run_end = at;
    while (run_end != end) {
      decoded = decode_utf8(run_end);
      if (!tables.unstable[decoded.code_point]) break;
      run_end += decoded.size;
    }
    out.append(copied, stable);
    append_normalized(tables, {stable, static_cast<size_t>(run_end - stable)}, form, scratch, out);
    copied = stable = at = run_end;
  }
  out.append(copied, end);
  return out;
}

std::string lowercase(std::string_view text) {
  static const std::unordered_map<char32_t, char32_t> lower = [] {
    std::unordered_map<char32_t, char32_t> map;
    for (size_t i = 0; i < unicode_tables::lowercase_runs_size; i += 4) {
      const int32_t* run = unicode_tables::lowercase_runs + i;
      for (int32_t c = run[0]; c <= run[1]; c += run[2]) map.emplace(c, c + run[3]);
    }
    return map;
  }();
  std::string out;
  out.reserve(text.size());
  for (const char* at = text.data(); at != text.data() + text.size();) {
    const DecodedCodePoint decoded = decode_utf8(at);
    at += decoded.size;
    if (decoded.code_point == 0x130) {
      out += "i\xCC\x87";
      continue;
    }
    const auto found = lower.find(decoded.code_point);
    append_utf8(out, found == lower.end() ? decoded.code_point : found->second);
  }
  return out;
}

}  // namespace caravan
