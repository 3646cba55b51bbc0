// The configuration of a model from GGUF metadata (architectures llama, which Mistral, Yi and SmolLM share, and qwen2).
#pragma once

#include "engine/io/gguf.h"
#include "engine/model/model_config.h"

namespace caravan {

/// @throws EngineError bad_file (a key missing or out of range, or no weights in the file) or unsupported_architecture
ModelConfig read_gguf_config(const GgufFile& file);

}  // namespace caravan
