// Pre-tokenizers: cut normalised text into the pieces that byte pair encoding sees.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/data/tokenizer_spec.h"

namespace caravan {

/// The length of the first match of `rule` in `text` (valid UTF-8, not empty), which begins at its first byte: these
/// regular expressions match every text without a gap.
size_t match_split_rule(SplitRule rule, std::string_view text);

/// A stretch of text, and whether the delimiter matched it.
struct SplitMatch {
  size_t first;
  size_t end;
  bool is_delimiter;
};

/// Joins or removes neighbouring stretches as `behavior` says.
void apply_delimiter_behavior(DelimiterBehavior behavior, std::vector<SplitMatch>& stretches);

/// Cuts `text` by any step but byte_level, metaspace and split_rule, which need no list of matches.
void split_by_step(const PreTokenizerStep& step, std::string_view text, std::vector<SplitMatch>& stretches);

}  // namespace caravan
