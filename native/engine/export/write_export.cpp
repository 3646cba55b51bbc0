#include "engine/export/write_export.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "engine/checkpoint/checkpoint.h"
#include "engine/io/half.h"
#include "engine/model/stored_experts.h"
#include "engine/platform/error.h"
#include "engine/platform/file.h"

namespace caravan {

namespace fs = std::filesystem;

namespace {

void write_text(const std::string& path, const std::string& text) {
  FileWriter writer(path);
  writer.write(std::as_bytes(std::span(text)));
  writer.sync_and_close();
}

std::string shard_name(size_t index, size_t count) {
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

/// As many tensors to a file as fit, in their order; a larger one has a file of its own.
std::vector<std::vector<ExportTensor>> cut_into_shards(std::vector<ExportTensor> tensors, uint64_t shard_bytes) {
  std::vector<std::vector<ExportTensor>> shards(1);
  uint64_t held = 0;
  for (ExportTensor& tensor : tensors) {
    if (!shards.back().empty() && held + tensor.bytes() > shard_bytes) {
      shards.emplace_back();
      held = 0;
    }
    held += tensor.bytes();
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

void fill_tensor(const TrainedModel& model, const ExportTensor& tensor, std::span<std::byte> bytes) {
  const int64_t count = tensor.elements();
  std::vector<float> values(static_cast<size_t>(count));
  model.read(tensor.origin, count, values.data());
  if (tensor.type == StoredType::F32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return;
  }
  auto* to = reinterpret_cast<uint16_t*>(bytes.data());
  for (int64_t i = 0; i < count; ++i) {
    const float value = values[static_cast<size_t>(i)];
    to[i] = tensor.type == StoredType::F16 ? float_to_half(value) : bf16(value).bits;
  }
}

void write_index(const std::string& path, const std::vector<std::vector<ExportTensor>>& shards) {
  nlohmann::ordered_json weights = nlohmann::ordered_json::object();
  uint64_t total = 0;
  std::map<std::string, std::string> places;
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const ExportTensor& tensor : shards[i]) {
      places[tensor.name] = shard_name(i, shards.size());
      total += tensor.bytes();
    }
  }
  for (const auto& [name, file] : places) weights[name] = file;
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weights}};
  write_text(path, index.dump(2) + "\n");
}

}  // namespace

ExportPlan plan_export(const ExportOptions& options) {
  ExportPlan plan;
  plan.config = read_model_config(options.model_dir);
  if (options.checkpoint_dir.empty()) {
    if (plan.config.experts.any()) plan.method = stored_method(plan.config.experts);
  } else if (is_adapter_folder(options.checkpoint_dir)) {
    const auto set = load_adapter_folder(Exec(), options.checkpoint_dir, plan.config);
    plan.method = set->method();
    plan.train_dtype = set->dtype();
  } else {
    const TrainOptions trained = read_checkpoint_manifest(options.checkpoint_dir).options();
    plan.method = trained.method;
    plan.train_dtype = trained.train_dtype;
  }
  check_layout(plan.config, plan.method, options.layout, options.type);
  if (options.layout == ExportLayout::onnx) return plan;
  if (options.layout == ExportLayout::gguf) {
    for (const GgufExportTensor& tensor : list_gguf_tensors(plan.config, options.type)) {
      plan.bytes += tensor.bytes();
      ++plan.tensors;
    }
    return plan;
  }
  for (const ExportTensor& tensor :
       list_export_tensors(plan.config, plan.method, plan.train_dtype, options.layout, options.type)) {
    plan.bytes += tensor.bytes();
    ++plan.tensors;
  }
  return plan;
}

std::vector<ExportedFile> write_export(const TrainedModel& model, const ExportOptions& options,
                                       const ExportWatch& watch) {
  const ExportPlan plan = plan_export(options);
  const fs::path dir(options.out_dir);
  // Names, headers, a tokenizer: 64 MiB beside the tensors is more than any model has.
  const uint64_t needed = plan.bytes + (uint64_t{64} << 20), room = free_disk_bytes(options.out_dir);
  if (needed > room) {
    throw EngineError("disk_full", options.out_dir + ": the export takes " + std::to_string(needed >> 20) +
                                       " MiB and the disk has " + std::to_string(room >> 20) +
                                       " MiB left; free some space, or choose a folder on another disk");
  }
  uint64_t done = 0;
  const auto wrote = [&](uint64_t bytes) {
    done += bytes;
    watch.tell("writing", static_cast<int64_t>(done), static_cast<int64_t>(plan.bytes));
    watch.check();
  };
  const auto path = [&](const std::string& name) { return (dir / name).string(); };
  if (options.layout == ExportLayout::gguf) {
    write_gguf_export(model, options, path(options.gguf_file), wrote);
  } else {
    const bool own = options.layout == ExportLayout::adapter;
    const bool small = own || options.layout == ExportLayout::peft;
    const auto shards = cut_into_shards(
        list_export_tensors(model.config(), model.method(), model.train_dtype(), options.layout, options.type),
        small ? UINT64_MAX : options.shard_bytes);
    for (size_t i = 0; i < shards.size(); ++i) {
      std::vector<TensorToStream> stream;
      for (const ExportTensor& tensor : shards[i]) {
        stream.push_back(
            {tensor.name, tensor.type, tensor.shape, [&model, &tensor, &wrote](std::span<std::byte> bytes) {
               fill_tensor(model, tensor, bytes);
               wrote(bytes.size());
             }});
      }
      const std::string name = own                  ? adapter_weights_name
                               : small              ? peft_weights_name
                               : shards.size() == 1 ? "model.safetensors"
                                                    : shard_name(i, shards.size());
      stream_safetensors(path(name), std::move(stream), {{"format", "pt"}});
    }
    if (shards.size() > 1) write_index(path("model.safetensors.index.json"), shards);
    if (own) {
      write_text(path(adapter_config_name),
                 write_adapter_config(model.method(), options.adapter_base, model.train_dtype()));
    } else if (small) {
      write_text(path(peft_config_name), write_peft_config(model.method(), options.adapter_base));
    } else {
      write_text(path("config.json"),
                 write_layout_config(model.config(), model.method(), options.layout, options.type));
    }
    if (const std::string notes = layout_notes(options.layout); !notes.empty()) write_text(path("README.md"), notes);
  }
  std::vector<ExportedFile> files;
  for (const auto& entry : fs::directory_iterator(dir)) {
    files.push_back({entry.path().filename().string(), entry.file_size()});
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return files;
}

}  // namespace caravan
