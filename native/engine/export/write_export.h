// Writes a trained model in one of the layouts.
#pragma once

#include <string>
#include <vector>

#include "engine/export/layouts.h"

namespace caravan {

struct ExportedFile {
  std::string name;
  uint64_t bytes = 0;
};

struct ExportPlan {
  ModelConfig config;
  MethodOptions method;
  DType train_dtype = DType::f32;
  uint64_t bytes = 0;  // of all tensors; 0 for onnx, whose graph lays them out
  int64_t tensors = 0;
};

/// What an export will take, from headers and manifests alone.
/// @throws EngineError bad_option where the layout cannot hold the model, bad_file
ExportPlan plan_export(const ExportOptions& options);

/// Fills `options.out_dir`. @throws EngineError disk_full (also beforehand, by `plan_export`), cancelled, ...
std::vector<ExportedFile> write_export(const TrainedModel& model, const ExportOptions& options,
                                       const ExportWatch& watch);

/// gguf: the whole file.
void write_gguf_export(const TrainedModel& model, const ExportOptions& options, const std::string& path,
                       const std::function<void(uint64_t)>& wrote);
/// Numbers of `tensor` in the file's own order of rows, unquantised.
void read_gguf_values(const TrainedModel& model, const GgufExportTensor& tensor, std::vector<float>& values);

}  // namespace caravan
