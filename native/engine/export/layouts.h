// The layouts: what each holds, tensor by tensor, and for which models it would be wrong.
#pragma once

#include <string>
#include <vector>

#include "engine/export/trained_model.h"
#include "engine/io/gguf_blocks.h"
#include "engine/io/safetensors.h"

namespace caravan {

/// One tensor of a Hugging Face layout.
struct ExportTensor {
  std::string name;  // in the file
  StoredType type = StoredType::BF16;
  std::vector<int64_t> shape;
  TensorOrigin origin;

  int64_t elements() const;
  uint64_t bytes() const;
};

/// One tensor of a GGUF file.
struct GgufExportTensor {
  std::string name;  // "blk.0.attn_q.weight"
  std::string hugging_face_name;
  GgmlType type = GgmlType::F16;
  std::vector<int64_t> shape;     // outermost first
  int64_t interleaved_heads = 0;  // rows of these heads are interleaved (rotary order of "llama"); 0: none

  int64_t elements() const;
  uint64_t bytes() const;
};

/// Refuses what a layout cannot hold, or what the code that reads it would silently compute wrong, and offers another.
/// @throws EngineError bad_option
void check_layout(const ModelConfig& config, const MethodOptions& method, ExportLayout layout, ExportType type);

/// In the order in which they are written. Not for GGUF.
std::vector<ExportTensor> list_export_tensors(const ModelConfig& config, const MethodOptions& method, DType train_dtype,
                                              ExportLayout layout, ExportType type);
std::vector<GgufExportTensor> list_gguf_tensors(const ModelConfig& config, ExportType type);

/// config.json of a layout that has one.
std::string write_layout_config(const ModelConfig& config, const MethodOptions& method, ExportLayout layout,
                                ExportType type);
/// What people need to know before another program loads it (Markdown); empty for most layouts.
std::string layout_notes(ExportLayout layout);

}  // namespace caravan
