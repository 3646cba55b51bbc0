// A tokenizer as the metadata of a GGUF file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/data/tokenizer_spec.h"
#include "engine/io/gguf_writer.h"

namespace caravan {

struct GgufTokenizerFacts {
  int64_t vocab_size = 0;        // rows of the embedding: holes are filled
  std::vector<int32_t> eos_ids;  // what ends an answer; the first is EOS
  std::optional<int32_t> bos_id;
  std::string chat_template;  // Jinja; may be empty
};

/// @throws EngineError unsupported_tokenizer for one that programs which read GGUF would cut into words otherwise
void add_gguf_tokenizer(GgufWriter& writer, const TokenizerSpec& spec, const GgufTokenizerFacts& facts);
/// The tokenizer of another GGUF file, with this template.
void copy_gguf_tokenizer(GgufWriter& writer, const GgufFile& from, const std::string& chat_template);

/// The first difference between a tokenizer and what was written of it; empty where they are the same.
std::string compare_tokenizers(const TokenizerSpec& written, const TokenizerSpec& original);

}  // namespace caravan
