// The regular expressions of GPT-2, Llama-3 and Qwen2 as matchers written by hand. Each alternative is tried in the
// order of the expression, each quantifier is greedy, and the only look-ahead is \s+(?!\S): a run of white space gives
// its last character to the word that follows, unless it is its only one.
#include "engine/data/tokenizer_split.h"

#include <algorithm>

namespace caravan {
namespace {

constexpr uint8_t not_other = class_letter | class_number | class_space;

inline uint8_t class_of(const uint8_t* classes, const DecodedCodePoint& decoded) { return classes[decoded.code_point]; }

// The end of the run, from `at`, of code points whose class has a bit of `mask`.
inline const char* run_of(const uint8_t* classes, const char* at, const char* end, uint8_t mask) {
  while (at != end) {
    const DecodedCodePoint decoded = decode_utf8(at);
    if (!(class_of(classes, decoded) & mask)) break;
    at += decoded.size;
  }
  return at;
}

inline const char* run_of_others(const uint8_t* classes, const char* at, const char* end) {
  while (at != end) {
    const DecodedCodePoint decoded = decode_utf8(at);
    if (class_of(classes, decoded) & not_other) break;
    at += decoded.size;
  }
  return at;
}

// 's|'t|'re|'ve|'m|'ll|'d at an apostrophe: the length, or 0. Without regard to case ſ (U+017F) is an s too.
size_t contraction(const char* at, const char* end, bool ignore_case) {
  const auto letter = [&](size_t i) -> char {
    if (at + i >= end) return 0;
    const char c = at[i];
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd': return 2;
    case 'r':
    case 'v': return letter(2) == 'e' ? 3 : 0;
    case 'l': return letter(2) == 'l' ? 3 : 0;
    case '\xC5': return ignore_case && at + 2 < end && at[2] == '\xBF' ? 3 : 0;
    default: return 0;
  }
}

// \s+(?!\S)|\s+ at white space.
const char* white_space(const char* at, const char* run_end, const char* end) {
  if (run_end == end) return run_end;
  const char* last = run_end - 1;
  while ((static_cast<unsigned char>(*last) & 0xC0) == 0x80) --last;
  return last == at ? run_end : last;
}

const char* match_gpt2(const uint8_t* classes, const char* at, const char* end) {
  if (*at == '\'') {
    if (const size_t length = contraction(at, end, false)) return at + length;
  }
  const char* word = *at == ' ' && at + 1 != end ? at + 1 : at;
  const uint8_t kind = class_of(classes, decode_utf8(word));
  if (kind & class_letter) return run_of(classes, word, end, class_letter);
  if (kind & class_number) return run_of(classes, word, end, class_number);
  if (!(kind & class_space)) return run_of_others(classes, word, end);
  return white_space(at, run_of(classes, at, end, class_space), end);
}

// Llama-3's with 3 digits at most in a piece, Qwen2's with 1.
const char* match_llama3(const uint8_t* classes, const char* at, const char* end, int max_digits) {
  if (*at == '\'') {
    if (const size_t length = contraction(at, end, true)) return at + length;
  }
  const DecodedCodePoint first = decode_utf8(at);
  const uint8_t kind = class_of(classes, first);
  if (kind & class_letter) return run_of(classes, at, end, class_letter);
  if (kind & class_number) {
    for (int digits = 0; digits < max_digits && at != end; ++digits) {
      const DecodedCodePoint digit = decode_utf8(at);
      if (!(class_of(classes, digit) & class_number)) break;
      at += digit.size;
    }
    return at;
  }
  const char* second = at + first.size;
  if (*at != '\r' && *at != '\n' && second != end && class_of(classes, decode_utf8(second)) & class_letter)
    return run_of(classes, second, end, class_letter);
  const char* sign = *at == ' ' ? second : at;
  if (sign != end && !(class_of(classes, decode_utf8(sign)) & not_other)) {
    const char* signs_end = run_of_others(classes, sign, end);
    while (signs_end != end && (*signs_end == '\r' || *signs_end == '\n')) ++signs_end;
    return signs_end;
  }
  const char* run_end = run_of(classes, at, end, class_space);
  for (const char* last = run_end; last != at; --last) {
    if (last[-1] == '\r' || last[-1] == '\n') return last;  // \s*[\r\n]+
  }
  return white_space(at, run_end, end);
}

template <typename IsDelimiter>
void mark_code_points(std::string_view text, std::vector<SplitMatch>& out, IsDelimiter is_delimiter) {
  size_t first = 0;  // of the stretch that is no delimiter
  for (size_t i = 0; i < text.size();) {
    const DecodedCodePoint decoded = decode_utf8(text.data() + i);
    if (is_delimiter(decoded.code_point)) {
      if (first < i) out.push_back({first, i, false});
      out.push_back({i, i + decoded.size, true});
      first = i + decoded.size;
    }
    i += decoded.size;
  }
  if (first < text.size()) out.push_back({first, text.size(), false});
}

void mark_literal(std::string_view text, std::string_view literal, std::vector<SplitMatch>& out) {
  size_t first = 0;
  for (size_t at; (at = text.find(literal, first)) != std::string_view::npos; first = at + literal.size()) {
    if (first < at) out.push_back({first, at, false});
    out.push_back({at, at + literal.size(), true});
  }
  if (first < text.size()) out.push_back({first, text.size(), false});
}

// \w+|[^\w\s]+, what lies between removed.
void mark_words(std::string_view text, std::vector<SplitMatch>& out) {
  const uint8_t* classes = code_point_classes();
  const auto part = [&](size_t at) {
    const uint8_t kind = class_of(classes, decode_utf8(text.data() + at));
    return kind & class_word ? 0 : kind & class_space ? 2 : 1;
  };
  for (size_t i = 0; i < text.size();) {
    const size_t first = i;
    const int kind = part(first);
    while (i < text.size() && part(i) == kind) i += decode_utf8(text.data() + i).size;
    out.push_back({first, i, kind == 2});
  }
}

}  // namespace

size_t match_split_rule(SplitRule rule, std::string_view text) {
  const uint8_t* classes = code_point_classes();
  const char* at = text.data();
  const char* end = at + text.size();
  switch (rule) {
    case SplitRule::gpt2: return match_gpt2(classes, at, end) - at;
    case SplitRule::llama3: return match_llama3(classes, at, end, 3) - at;
    case SplitRule::qwen2: return match_llama3(classes, at, end, 1) - at;
  }
  return text.size();
}

void apply_delimiter_behavior(DelimiterBehavior behavior, std::vector<SplitMatch>& stretches) {
  std::vector<SplitMatch> out;
  bool delimiter_before = false;
  switch (behavior) {
    case DelimiterBehavior::isolated: return;
    case DelimiterBehavior::removed:
      std::erase_if(stretches, [](const SplitMatch& stretch) { return stretch.is_delimiter; });
      return;
    case DelimiterBehavior::contiguous:
      for (const SplitMatch& stretch : stretches) {
        if (!out.empty() && out.back().is_delimiter == stretch.is_delimiter)
          out.back().end = stretch.end;
        else
          out.push_back(stretch);
      }
      break;
    case DelimiterBehavior::merged_with_previous:
      for (const SplitMatch& stretch : stretches) {
        if (stretch.is_delimiter && !delimiter_before && !out.empty())
          out.back().end = stretch.end;
        else
          out.push_back(stretch);
        delimiter_before = stretch.is_delimiter;
      }
      break;
    case DelimiterBehavior::merged_with_next:
      for (auto stretch = stretches.rbegin(); stretch != stretches.rend(); ++stretch) {
        if (stretch->is_delimiter && !delimiter_before && !out.empty())
          out.back().first = stretch->first;
        else
          out.push_back(*stretch);
        delimiter_before = stretch->is_delimiter;
      }
      std::reverse(out.begin(), out.end());
      break;
  }
  stretches = std::move(out);
}

void split_by_step(const PreTokenizerStep& step, std::string_view text, std::vector<SplitMatch>& stretches) {
  using Kind = PreTokenizerStep::Kind;
  const uint8_t* classes = code_point_classes();
  const auto mark_class = [&](uint8_t bit) {
    mark_code_points(text, stretches, [&](char32_t c) { return (classes[c] & bit) != 0; });
  };
  stretches.clear();
  DelimiterBehavior behavior = step.behavior;
  switch (step.kind) {
    case Kind::split_literal:
      mark_literal(text, step.literal, stretches);
      if (step.invert) {
        for (SplitMatch& stretch : stretches) stretch.is_delimiter = !stretch.is_delimiter;
      }
      break;
    case Kind::digits: mark_class(class_numeric); break;
    case Kind::punctuation: mark_class(class_punctuation); break;
    case Kind::whitespace:
      mark_words(text, stretches);
      behavior = DelimiterBehavior::removed;
      break;
    case Kind::whitespace_split:
      mark_class(class_space);
      behavior = DelimiterBehavior::removed;
      break;
    default: stretches.push_back({0, text.size(), false}); return;
  }
  apply_delimiter_behavior(behavior, stretches);
}

}  // namespace caravan
