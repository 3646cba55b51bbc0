// The tokenizer which a GGUF file's metadata describes, as the one that Hugging Face has for the same model.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/data/tokenizer_spec.h"
#include "engine/io/gguf.h"

namespace caravan {

/// @throws EngineError "tokenizer_invalid", naming the key; also where the file does not say how text is cut into words
TokenizerSpec read_gguf_tokenizer(const GgufFile& file);

/// What templates and chats need beside the tokenizer.
struct GgufTemplate {
  std::optional<std::string> bos;  // nothing where the tokenizer has none
  std::optional<std::string> eos;
  std::vector<std::string> specials;
  std::optional<std::string> chat_template;  // Jinja
  std::vector<int32_t> stop_ids;
};

/// @throws EngineError "tokenizer_invalid"
GgufTemplate read_gguf_template(const GgufFile& file);

}  // namespace caravan
