// Reads Hugging Face's tokenizer.json.
#pragma once

#include <string_view>

#include "engine/data/tokenizer_spec.h"

namespace caravan {

/// Parses the text of a tokenizer.json. What it asks for and this engine does not do is refused by name, so that no
/// text is ever tokenised otherwise than the model learnt it.
/// @param name what messages call the file
/// @throws EngineError "tokenizer_invalid", naming the field
TokenizerSpec parse_tokenizer_json(std::string_view json, std::string_view name);

}  // namespace caravan
