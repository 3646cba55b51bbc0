// The parity gate: an export is read again and held to the model that was trained, tensor by tensor and logit by logit.
#pragma once

#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "engine/export/parity_models.h"
#include "engine/export/write_export.h"

namespace caravan {

/// How two models' logits differ over the same tokens. The first is the reference.
struct LogitComparison {
  int64_t tokens = 0;
  double max_difference = 0.0;
  double mean_difference = 0.0;  // of all logits
  double kl = 0.0;               // mean over tokens of KL(reference || other), nats
  double max_kl = 0.0;
  int64_t same_choice = 0;  // tokens whose largest logit is the same one
  /// Tokens whose two best logits lie further apart than the largest difference, and those of them that choose otherwise.
  int64_t decided = 0;
  int64_t decided_otherwise = 0;
};
/// Rows (tokens, vocab) of both, end to end. @throws EngineError bad_file where a logit is no number
LogitComparison compare_logits(std::span<const std::vector<float>> reference, std::span<const std::vector<float>> other,
                               int64_t vocab);

/// Every element of every tensor in the file against the checkpoint.
struct TensorComparison {
  int64_t tensors = 0;
  int64_t elements = 0;
  int64_t copied = 0;           // tensors that must be equal, after the cast to the file's type
  int64_t merged = 0;           // tensors that must be W + scale B A to the rounding of that type
  int64_t quantised = 0;        // tensors that must be within half a step of their block
  double max_difference = 0.0;  // |file - checkpoint|, before any cast
  std::string max_tensor;
  struct Each {
    std::string name;
    const char* rule = "";  // "copied", "merged", "quantised"
    int64_t elements = 0;
    double difference = 0.0;  // the largest
    int64_t wrong = 0;        // elements outside what the rule allows
  };
  std::vector<Each> each;          // in the order of the file's layout
  std::vector<std::string> wrong;  // what is missing, too many, or differs: one sentence each
};

struct ExportReport {
  TensorComparison tensors;
  /// Against the engine's own model: the run as it was trained (or with its base as stored where `original_base`); of
  /// quantised files the same with the very weights that the file must hold.
  LogitComparison logits;
  std::string reference;  // "trained", "original_base", "dequantised"
  bool has_loss = false;
  LogitComparison loss;              // against the run as it was trained, where the reference is not that
  std::vector<UnusedExpert> unused;  // got no token of the prompts: their numbers are compared, their logits are not
  std::string limit;                 // what had to hold
  bool passed = false;
};

/// @param rows token ids of the prompts
ExportReport verify_export(const TrainedModel& model, const ExportOptions& options,
                           std::span<const std::vector<int32_t>> rows, const ExportWatch& watch);

/// With the fields that core/engine/AddonTypes.ts gives them.
nlohmann::ordered_json to_json(const LogitComparison& found);
nlohmann::ordered_json to_json(const TensorComparison& found);
nlohmann::ordered_json to_json(const std::vector<UnusedExpert>& unused);
/// One JSON object with the fields of ExportParity of core/engine/AddonTypes.ts.
std::string report_json(const ExportReport& report);

}  // namespace caravan
