// What an export is asked for: a trained model, the layout that other programs read, and the type of its numbers.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "engine/model/adapter_folder.h"
#include "engine/model/base_model.h"

namespace caravan {

enum class ExportLayout : uint8_t {
  peft,        // PEFT's LoRA folder
  adapter,     // Caravan's own: LoRA, adapters and routers
  merged,      // a dense Hugging Face folder
  camelidae,   // as hywu/Camelidae-8x7B is published
  qwen2idae,   // as hywu/Qwen2idae-16x14B is
  sparsetral,  // as serpdotai/sparsetral-16x7B is
  mixtral,     // sparse upcycling as transformers' Mixtral
  gguf,        // one file for llama.cpp and its kin
  onnx,        // a graph for ONNX Runtime, and one file of its numbers
};
const char* export_layout_name(ExportLayout layout);
/// @throws EngineError bad_option
ExportLayout parse_export_layout(const std::string& name);

enum class ExportType : uint8_t { f32, bf16, f16, q8_0, q4_0, int4 };
const char* export_type_name(ExportType type);
/// @throws EngineError bad_option
ExportType parse_export_type(const std::string& name);
inline bool is_quantised(ExportType type) {
  return type == ExportType::q8_0 || type == ExportType::q4_0 || type == ExportType::int4;
}

struct ExportOptions {
  std::string model_dir;       // folder or GGUF file of the base
  std::string checkpoint_dir;  // empty: the base as it is; onnx alone
  BaseOptions base;            // how the run kept its base
  ExportLayout layout = ExportLayout::merged;
  ExportType type = ExportType::bf16;
  /// LoRA is merged into the base as its files have it, not as the run kept it.
  bool original_base = false;
  std::string out_dir;  // is there and empty
  uint64_t shard_bytes = uint64_t{5} << 30;
  AdapterBase adapter_base;
  std::string gguf_file;         // name of the file in out_dir
  std::string gguf_name;         // general.name
  std::string tokenizer_path;    // tokenizer.json or a GGUF file; GGUF alone needs it
  std::string chat_template;     // Jinja; may be empty
  std::vector<int32_t> eos_ids;  // what ends an answer; the first is the tokenizer's EOS
  int threads = 0;
};

/// Who watches an export. Both may be empty.
struct ExportWatch {
  std::function<void(const char* stage, int64_t done, int64_t total)> progress;
  const std::atomic<bool>* cancelled = nullptr;

  void tell(const char* stage, int64_t done, int64_t total) const {
    if (progress) progress(stage, done, total);
  }
  /// @throws EngineError cancelled
  void check() const;
};

}  // namespace caravan
