#include "engine/export/verify_export.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "engine/export/compare_tensors.h"
#include "engine/export/parity_models.h"
#include "engine/infer/log_probability.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

/// The model whose weights are what a quantised file must hold, made in memory and not from the file.
std::shared_ptr<const BaseModel> gguf_base(const TrainedModel& model, const ExportOptions& options) {
  std::unordered_map<std::string, GgufExportTensor> tensors;
  for (GgufExportTensor& tensor : list_gguf_tensors(model.config(), options.type)) {
    const std::string name = tensor.hugging_face_name;
    tensors.emplace(name, std::move(tensor));
  }
  return base_of(model.config(), [&](const std::string& name) {
    GgufExportTensor tensor = tensors.at(name);
    tensor.interleaved_heads = 0;  // blocks lie within rows: their order does not matter to them
    std::vector<float> plain;
    read_gguf_values(model, tensor, plain);
    std::vector<std::byte> blocks(tensor.bytes());
    quantize_blocks(tensor.type, plain, blocks);
    DeviceBuffer buffer = DeviceBuffer::of(Device::cpu, DType::f32, tensor.elements());
    dequantize_blocks(tensor.type, blocks, buffer.as<float>());
    return buffer;
  });
}

// What must hold (docs/user-guide.md tells people).
constexpr double max_difference_fp32 = 1e-3;
constexpr double max_kl_16_bits = 1e-4;

/// The export, by the reader that any model comes through.
std::shared_ptr<InferenceModel> open_export(const ExportOptions& options) {
  OpenModelOptions open;
  open.compute_dtype = DType::f32;
  open.threads = options.threads;
  open.base_dtype = BaseDType::f32;
  if (options.layout == ExportLayout::peft || options.layout == ExportLayout::adapter) {
    open.model_dir = options.model_dir;
    open.base_dtype = options.base.dtype;
    open.double_quant = options.base.double_quant;
    open.checkpoint_dir = options.out_dir;
  } else if (options.layout == ExportLayout::gguf) {
    open.model_dir = (std::filesystem::path(options.out_dir) / options.gguf_file).string();
  } else {
    open.model_dir = options.out_dir;
  }
  return InferenceModel::open(open);
}

bool is_finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

}  // namespace

LogitComparison compare_logits(std::span<const std::vector<float>> reference, std::span<const std::vector<float>> other,
                               int64_t vocab) {
  LogitComparison result;
  double sum = 0.0;
  struct Choice {
    double margin;
    bool same;
  };
  std::vector<Choice> choices;
  for (size_t row = 0; row < reference.size(); ++row) {
    if (!is_finite(reference[row]) || !is_finite(other[row])) {
      throw EngineError("bad_file", "a logit of the model or of its export is no finite number");
    }
    for (size_t at = 0; at < reference[row].size(); at += static_cast<size_t>(vocab)) {
      const float* a = reference[row].data() + at;
      const float* b = other[row].data() + at;
      const double norm_a = log_sum_exp(a, vocab), norm_b = log_sum_exp(b, vocab);
      double kl = 0.0;
      float second = -std::numeric_limits<float>::infinity();
      const int64_t best = arg_max(a, vocab);
      for (int64_t i = 0; i < vocab; ++i) {
        const double difference = std::fabs(double{a[i]} - double{b[i]});
        result.max_difference = std::max(result.max_difference, difference);
        sum += difference;
        const double log_p = double{a[i]} - norm_a;
        kl += std::exp(log_p) * (log_p - (double{b[i]} - norm_b));
        if (i != best) second = std::max(second, a[i]);
      }
      result.kl += kl;
      result.max_kl = std::max(result.max_kl, kl);
      const bool same = best == arg_max(b, vocab);
      result.same_choice += same ? 1 : 0;
      choices.push_back({double{a[best]} - double{second}, same});
    }
  }
  result.tokens = static_cast<int64_t>(choices.size());
  if (choices.empty()) return result;
  result.kl /= static_cast<double>(result.tokens);
  result.mean_difference = sum / static_cast<double>(result.tokens * vocab);
  for (const Choice& choice : choices) {
    if (choice.margin <= result.max_difference) continue;
    ++result.decided;
    if (!choice.same) ++result.decided_otherwise;
  }
  return result;
}

ExportReport verify_export(const TrainedModel& model, const ExportOptions& options,
                           std::span<const std::vector<int32_t>> rows, const ExportWatch& watch) {
  ExportReport report;
  const std::shared_ptr<ThreadPool> pool = make_thread_pool(options.threads);
  Exec exec;
  exec.pool = pool.get();
  report.tensors = compare_export_tensors(exec, model, options, watch);

  const int64_t vocab = model.config().vocab_size;
  const bool quantised = is_quantised(options.type) && options.layout == ExportLayout::gguf;
  std::vector<std::vector<float>> reference;
  {
    const auto trained = in_memory(model, model.base(), model.set(), options.threads);
    reference = logits_of(*trained, rows, watch, "running the trained model");
    report.unused = unused_experts(*trained, rows);
  }
  std::vector<std::vector<float>> exported;
  {
    const auto opened = open_export(options);
    exported = logits_of(*opened, rows, watch, "running the export");
  }
  report.reference = options.original_base && model.base() != nullptr ? "original_base" : "trained";
  if (quantised) {
    const auto exact = in_memory(model, gguf_base(model, options), nullptr, options.threads);
    const auto wanted = logits_of(*exact, rows, watch, "running the dequantised weights");
    report.reference = "dequantised";
    report.logits = compare_logits(wanted, exported, vocab);
  } else {
    report.logits = compare_logits(reference, exported, vocab);
  }
  if (report.reference == "original_base" || (options.original_base && model.base() != nullptr)) {
    const auto as_trained = open_as_trained(options);
    report.loss = compare_logits(logits_of(*as_trained, rows, watch, "running the run as trained"), exported, vocab);
    report.has_loss = true;
  } else if (quantised) {
    report.loss = compare_logits(reference, exported, vocab);
    report.has_loss = true;
  }

  const bool kept_type = options.layout == ExportLayout::peft || options.layout == ExportLayout::adapter;
  const bool narrow = !kept_type && (options.type == ExportType::bf16 || options.type == ExportType::f16);
  report.limit = narrow ? "KL at most 1e-4 nats a token, and the same choice wherever the margin exceeds the largest "
                          "difference"
                        : "largest logit difference at most 1e-3";
  const bool close = narrow ? report.logits.kl <= max_kl_16_bits && report.logits.decided_otherwise == 0
                            : report.logits.max_difference <= max_difference_fp32;
  report.passed = report.tensors.wrong.empty() && report.logits.tokens > 0 && close;
  return report;
}

using Json = nlohmann::ordered_json;

Json to_json(const LogitComparison& found) {
  return Json{{"tokens", found.tokens},
              {"maxDifference", found.max_difference},
              {"meanDifference", found.mean_difference},
              {"kl", found.kl},
              {"maxKl", found.max_kl},
              {"sameChoice", found.same_choice},
              {"decided", found.decided},
              {"decidedOtherwise", found.decided_otherwise}};
}

Json to_json(const TensorComparison& found) {
  Json each = Json::array();
  for (const TensorComparison::Each& one : found.each) {
    each.push_back({{"name", one.name},
                    {"rule", one.rule},
                    {"elements", one.elements},
                    {"difference", one.difference},
                    {"wrong", one.wrong}});
  }
  return Json{{"tensors", found.tensors},      {"elements", found.elements},   {"copied", found.copied},
              {"merged", found.merged},        {"quantised", found.quantised}, {"maxDifference", found.max_difference},
              {"maxTensor", found.max_tensor}, {"wrong", found.wrong},         {"each", each}};
}

Json to_json(const std::vector<UnusedExpert>& unused) {
  Json list = Json::array();
  for (const UnusedExpert& each : unused) list.push_back({{"layer", each.layer}, {"expert", each.expert}});
  return list;
}

std::string report_json(const ExportReport& report) {
  return Json{{"passed", report.passed},
              {"limit", report.limit},
              {"reference", report.reference},
              {"logits", to_json(report.logits)},
              {"loss", report.has_loss ? to_json(report.loss) : Json(nullptr)},
              {"tensors", to_json(report.tensors)},
              {"unusedExperts", to_json(report.unused)}}
      .dump();
}

}  // namespace caravan
