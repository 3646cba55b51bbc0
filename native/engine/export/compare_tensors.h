// Every element of an exported file against what it must be.
#pragma once

#include "engine/export/onnx_tensors.h"
#include "engine/export/verify_export.h"

namespace caravan {

TensorComparison compare_export_tensors(const Exec& exec, const TrainedModel& model, const ExportOptions& options,
                                        const ExportWatch& watch);

/// The same for the file of an ONNX export's numbers.
TensorComparison compare_onnx_tensors(const Exec& exec, const TrainedModel& model,
                                      const std::vector<OnnxTensor>& tensors, const std::string& path,
                                      const ExportWatch& watch);

}  // namespace caravan
