// UTF-8, character classes and normal forms, with the properties that Hugging Face tokenizers gives them (the tables
// are generated from that package: generate_unicode_tables.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace caravan {

/// Bits of a code point's class. `class_number` is \p{N} of regular expressions, `class_numeric` the Digits
/// pre-tokenizer's notion (a newer Unicode version); `class_word` is \w.
enum CodePointClass : uint8_t {
  class_letter = 1,
  class_number = 2,
  class_numeric = 4,
  class_space = 8,
  class_punctuation = 16,
  class_word = 32,
};

/// One decoded code point and the bytes it took.
struct DecodedCodePoint {
  char32_t code_point;
  uint32_t size;
};

/// The class bits of every code point, indexed by code point (0x110000 entries, built once).
const uint8_t* code_point_classes();

/// Decodes the code point at `at`. The text must be valid UTF-8 and `at` the first byte of a code point.
inline DecodedCodePoint decode_utf8(const char* at) {
  const auto* s = reinterpret_cast<const unsigned char*>(at);
  if (s[0] < 0x80) return {s[0], 1};
  if (s[0] < 0xE0) return {static_cast<char32_t>((s[0] & 0x1F) << 6 | (s[1] & 0x3F)), 2};
  if (s[0] < 0xF0) {
    return {static_cast<char32_t>((s[0] & 0x0F) << 12 | (s[1] & 0x3F) << 6 | (s[2] & 0x3F)), 3};
  }
  return {static_cast<char32_t>((s[0] & 0x07) << 18 | (s[1] & 0x3F) << 12 | (s[2] & 0x3F) << 6 | (s[3] & 0x3F)), 4};
}

void append_utf8(std::string& out, char32_t code_point);

/// The offset of the first byte that breaks UTF-8 (overlong, surrogate and out-of-range forms included), or nothing.
std::optional<size_t> find_invalid_utf8(std::string_view text);

/// The text with every maximal ill-formed part replaced by U+FFFD (the Unicode standard's, and Rust's, practice).
std::string replace_invalid_utf8(std::string_view bytes);

enum class NormalForm : uint8_t { nfc, nfd, nfkc, nfkd };

/// `text` (valid UTF-8) in a normal form.
std::string normalize(std::string_view text, NormalForm form);

/// False only when `text` is surely unchanged by NFC: a scan without allocation.
bool may_change_under_nfc(std::string_view text);

/// Lower case, one code point at a time without context (İ becomes two code points).
std::string lowercase(std::string_view text);

}  // namespace caravan
