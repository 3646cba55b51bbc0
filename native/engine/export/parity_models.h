// What exports are held to: the model that was trained, and for quantised files the model of the very numbers that the
// file must hold, both in memory and run by the engine.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/export/trained_model.h"
#include "engine/infer/inference_model.h"

namespace caravan {

struct UnusedExpert {
  int64_t layer = 0;
  int64_t expert = 0;
};

std::vector<std::vector<float>> logits_of(InferenceModel& model, std::span<const std::vector<int32_t>> rows,
                                          const ExportWatch& watch, const char* stage);

/// Computes in f32. `base` and `set` as Model takes them.
std::shared_ptr<InferenceModel> in_memory(const TrainedModel& model, std::shared_ptr<const BaseModel> base,
                                          std::shared_ptr<TrainableSet> set, int threads);

/// The run on the base that it was trained on, opened as chats open it.
std::shared_ptr<InferenceModel> open_as_trained(const ExportOptions& options);

/// Experts that no token of the rows reached.
std::vector<UnusedExpert> unused_experts(InferenceModel& model, std::span<const std::vector<int32_t>> rows);

/// A base of f32 values: `values` gives those of a Hugging Face name.
std::shared_ptr<const BaseModel> base_of(const ModelConfig& config,
                                         const std::function<DeviceBuffer(const std::string&)>& values);

}  // namespace caravan
