#include "addon/train_options.h"

#include <cmath>
#include <limits>

#include "addon/options.h"
#include "engine/model/compute_device.h"

namespace caravan::addon {

namespace {

float to_real(OptionReader& reader, const char* field) {
  const double value = reader.number(field);
  if (std::abs(value) > std::numeric_limits<float>::max()) {
    throw EngineError("bad_option", reader.name(field) + " is too large for a 32-bit number");
  }
  return static_cast<float>(value);
}

[[noreturn]] void refuse(const std::string& what, const std::string& value, const char* allowed) {
  throw EngineError("bad_option", what + " is \"" + value + "\"; it must be " + allowed);
}

Method to_method(const std::string& name, const std::string& what) {
  if (name == "pesc") return Method::pesc;
  if (name == "lora") return Method::lora;
  if (name == "full") return Method::full;
  if (name == "upcycle") return Method::upcycle;
  refuse(what, name, "pesc, lora, full or upcycle");
}

void read_method(OptionReader& reader, MethodOptions& method) {
  method.method = to_method(reader.text("method"), reader.name("method"));
  method.lora_rank = reader.integer("loraRank", 0, max_count);
  method.lora_alpha = to_real(reader, "loraAlpha");
  method.lora_dropout = to_real(reader, "loraDropout");
  method.num_experts = reader.integer("numExperts", 0, max_count);
  method.top_k = reader.integer("topK", 0, max_count);
  method.adapter_dim = reader.integer("adapterDim", 0, max_count);
  method.adapter_dropout = to_real(reader, "adapterDropout");
  method.adapter_scale = to_real(reader, "adapterScale");
  method.balance_coefficient = to_real(reader, "balanceCoefficient");
}

void read_optimizer(OptionReader& reader, TrainOptions& options) {
  options.lr = to_real(reader, "lr");
  options.schedule = reader.text("schedule");
  options.warmup_ratio = to_real(reader, "warmupRatio");
  options.optimizer = reader.text("optimizer");
  options.beta1 = to_real(reader, "beta1");
  options.beta2 = to_real(reader, "beta2");
  options.eps = to_real(reader, "eps");
  options.weight_decay = to_real(reader, "weightDecay");
  options.max_grad_norm = to_real(reader, "maxGradNorm");
}

}  // namespace

DType to_dtype(const std::string& name, const std::string& what) {
  if (name == "f32") return DType::f32;
  if (name == "bf16") return DType::bf16;
  refuse(what, name, "f32 or bf16");
}

Device to_device(const std::string& name, const std::string& what) {
  if (name == "cpu") return Device::cpu;
  if (name == "cuda") return Device::cuda;
  refuse(what, name, "cpu or cuda");
}

BaseDType to_base_dtype(const std::string& name, const std::string& what) {
  if (name == "f32") return BaseDType::f32;
  if (name == "bf16") return BaseDType::bf16;
  if (name == "nf4") return BaseDType::nf4;
  refuse(what, name, "f32, bf16 or nf4");
}

TrainOptions to_train_options(Napi::Value value, const std::string& call) {
  OptionReader reader(value, call);
  TrainOptions options;
  options.model_dir = reader.text("modelDir");
  options.train_shard = reader.text("trainShard");
  options.validation_shard = reader.text_or("validationShard", {});
  options.checkpoint_dir = reader.text("checkpointDir");
  options.resume_from = reader.text_or("resumeFrom", {});
  read_method(reader, options.method);
  options.base_dtype = to_base_dtype(reader.text("baseDtype"), reader.name("baseDtype"));
  options.double_quant = reader.flag("doubleQuant");
  options.compute_dtype = to_dtype(reader.text("computeDtype"), reader.name("computeDtype"));
  options.train_dtype = to_dtype(reader.text("trainDtype"), reader.name("trainDtype"));
  options.batch_size = reader.integer("batchSize", 1, max_count);
  options.micro_batch_size = reader.integer("microBatchSize", 1, max_count);
  options.seq_len = reader.integer("seqLen", 2, max_count);
  options.packing = reader.flag("packing");
  options.epochs = reader.integer("epochs", 1, max_count);
  options.max_steps = reader.integer_or("maxSteps", 1, max_count, 0);
  read_optimizer(reader, options);
  options.recompute = reader.flag("recompute");
  options.recompute_layers = reader.integer_or("recomputeLayers", 1, max_count, 0);
  options.seed = static_cast<uint32_t>(reader.integer("seed", 0, std::numeric_limits<uint32_t>::max()));
  options.eval_steps = reader.integer("evalSteps", 0, max_count);
  options.save_steps = reader.integer("saveSteps", 0, max_count);
  options.keep_checkpoints = reader.integer("keepCheckpoints", 1, max_count);
  options.threads = static_cast<int>(reader.integer("threads", 0, 4096));
  const DevicePlace place = parse_device(reader.text("device"), reader.name("device"));
  options.device = place.device;
  options.device_index = place.index;
  options.identity = to_text_map(reader.required("identity"), reader.name("identity"));
  reader.finish();
  check_train_options(options);
  return options;
}

}  // namespace caravan::addon
