// The parity gate of ONNX exports, as far as it goes without ONNX Runtime: every tensor of the file, and the logits that the
// graph must give.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/export/onnx_tensors.h"
#include "engine/export/verify_export.h"

namespace caravan {

struct OnnxReference {
  TensorComparison tensors;
  std::string reference;                   // "trained", "original_base", "dequantised"
  std::vector<std::vector<float>> logits;  // (tokens, vocab) of each row: what the file's numbers must give
  bool has_trained = false;
  std::vector<std::vector<float>> trained;  // of the run as trained, where that is another model
  std::vector<UnusedExpert> unused;
};

/// @param path the file that write_onnx_data wrote
OnnxReference verify_onnx(const TrainedModel& model, const ExportOptions& options,
                          const std::vector<OnnxTensor>& tensors, const std::string& path,
                          std::span<const std::vector<int32_t>> rows, const ExportWatch& watch);

/// One JSON object: its fields but for the logits.
std::string reference_json(const OnnxReference& found);

/// What a graph is made from: one JSON object with the fields of OnnxArchitecture of core/engine/AddonTypes.ts.
/// @throws EngineError bad_option where ONNX cannot hold the model
std::string describe_onnx(const ExportOptions& options);

}  // namespace caravan
