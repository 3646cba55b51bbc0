// Every element of an exported file against what it must be.
#pragma once

#include "engine/export/verify_export.h"

namespace caravan {

TensorComparison compare_export_tensors(const Exec& exec, const TrainedModel& model, const ExportOptions& options,
                                        const ExportWatch& watch);

}  // namespace caravan
