// Normalizers: what is done to a text before it is cut into pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/data/tokenizer_spec.h"

namespace caravan {

/// The normalised text, a view of the input or of a buffer.
struct NormalizedText {
  std::string_view text;
  bool keeps_start;  // its first character comes from (or stands before) the input's first
};

/// Two buffers, used in turn, which hold the result until the next call.
struct NormalizeScratch {
  std::string buffers[2];
};

NormalizedText apply_normalizers(const std::vector<NormalizerStep>& steps, std::string_view text,
                                 NormalizeScratch& scratch);

/// Every occurrence of `pattern` (not empty) replaced; `out` must not hold `text`.
void replace_all(std::string_view text, std::string_view pattern, std::string_view content, std::string& out);

}  // namespace caravan
