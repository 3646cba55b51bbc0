// What a tokenizer is, apart from the file format that said so: the readers of tokenizer.json and of GGUF metadata
// fill a TokenizerSpec, and Tokenizer builds its tables from one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/data/unicode.h"

namespace caravan {

struct NormalizerStep {
  enum class Kind : uint8_t { normal_form, lowercase, replace, prepend, strip };
  Kind kind;
  NormalForm form = NormalForm::nfc;  // normal_form
  std::string pattern;                // replace: a literal, never empty
  std::string content;                // replace, prepend
  bool strip_left = false;
  bool strip_right = false;
};

/// The regular expressions of Split and ByteLevel that have a matcher in tokenizer_split.cpp.
enum class SplitRule : uint8_t { gpt2, llama3, qwen2 };

/// What becomes of a delimiter (Hugging Face's SplitDelimiterBehavior).
enum class DelimiterBehavior : uint8_t { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// When Metaspace puts its marker before a piece that does not begin with it.
enum class PrependScheme : uint8_t { always, first, never };

struct PreTokenizerStep {
  enum class Kind : uint8_t {
    split_rule,
    split_literal,
    digits,
    byte_level,
    metaspace,
    whitespace,
    whitespace_split,
    punctuation
  };
  Kind kind;
  SplitRule rule = SplitRule::gpt2;                          // split_rule
  std::string literal;                                       // split_literal; metaspace: its marker
  DelimiterBehavior behavior = DelimiterBehavior::isolated;  // split_literal, digits, punctuation
  bool invert = false;                                       // split_literal: keep what the literal is not
  bool add_prefix_space = false;                             // byte_level
  bool use_regex = false;                                    // byte_level: split by SplitRule::gpt2 first
  PrependScheme prepend_scheme = PrependScheme::always;      // metaspace
  bool split = true;                                         // metaspace: before every marker
};

struct DecoderStep {
  enum class Kind : uint8_t { byte_level, replace, byte_fallback, fuse, strip, metaspace };
  Kind kind;
  std::string pattern;                                   // replace; strip and metaspace: one code point
  std::string content;                                   // replace
  size_t start = 0;                                      // strip: code points at most taken from the front
  size_t stop = 0;                                       // strip: and from the back
  PrependScheme prepend_scheme = PrependScheme::always;  // metaspace
};

/// A token that is matched in the text before the model sees it.
struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;  // matched in the normalised text
  bool special = false;
};

struct TokenizerSpec {
  std::string name;  // for messages: the file's path, or what the caller calls it

  // The model: byte pair encoding.
  std::vector<std::pair<std::string, int32_t>> vocab;       // (token, id); ids unique
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  std::optional<std::string> unk_token;
  bool byte_fallback = false;
  bool fuse_unk = false;
  bool ignore_merges = false;  // a word that is a token is that token, whatever the merges make of it

  std::vector<NormalizerStep> normalizers;
  std::vector<PreTokenizerStep> pre_tokenizers;
  std::optional<std::vector<DecoderStep>> decoders;  // absent: tokens joined by a space
  std::vector<AddedToken> added_tokens;

  // What the post-processor puts round a single text.
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
};

}  // namespace caravan
