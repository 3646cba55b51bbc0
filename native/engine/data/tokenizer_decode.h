// Decoders: from the strings of tokens back to text.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/data/tokenizer_spec.h"

namespace caravan {

/// The text of `tokens` as Hugging Face's decoders give it (valid UTF-8, U+FFFD for bytes that make no character).
/// Without decoders the tokens are joined by a space.
std::string decode_tokens(const std::optional<std::vector<DecoderStep>>& steps, std::vector<std::string> tokens);

/// The bytes which one token adds inside a text: no stripping at the text's ends, half characters kept.
std::string decode_token_bytes(const std::optional<std::vector<DecoderStep>>& steps, std::string_view token);

}  // namespace caravan
