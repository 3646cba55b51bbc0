#include "engine/export/layouts.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "engine/model/stored_experts.h"
#include "engine/platform/error.h"

namespace caravan {

namespace {

int64_t product(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

[[noreturn]] void refuse(ExportLayout layout, const std::string& why, const std::string& instead) {
  throw EngineError("bad_option",
                    std::string("layout \"") + export_layout_name(layout) + "\": " + why + "; " + instead);
}

bool is_windowed(const ModelConfig& config) {
  return std::any_of(config.windows.begin(), config.windows.end(), [](int64_t window) { return window > 0; });
}
bool is_evenly_windowed(const ModelConfig& config) {
  return std::all_of(config.windows.begin(), config.windows.end(),
                     [&](int64_t window) { return window == config.windows[0]; });
}
bool skips_rotation(const ModelConfig& config) {
  return std::any_of(config.no_rope.begin(), config.no_rope.end(), [](uint8_t skips) { return skips != 0; });
}

void check_method(const MethodOptions& method, ExportLayout layout) {
  const bool dense = method.method == Method::lora || method.method == Method::full;
  const std::string run = std::string("the run's method is ") + method_name(method.method);
  switch (layout) {
    case ExportLayout::peft:
      if (method.method == Method::pesc) {
        refuse(layout, run + ", and PEFT would load its LoRA and silently leave out the experts",
               "use adapter, or camelidae");
      }
      if (method.method != Method::lora) refuse(layout, run + ", which trains whole weights", "use merged or mixtral");
      return;
    case ExportLayout::adapter:
      if (!method.has_lora()) refuse(layout, run + ", which trains whole weights", "use merged or mixtral");
      return;
    case ExportLayout::merged:
      if (dense) return;
      refuse(layout, run + ", and a dense folder has no place for its experts",
             method.method == Method::pesc ? "use camelidae, sparsetral or adapter" : "use mixtral");
    case ExportLayout::camelidae:
    case ExportLayout::qwen2idae:
    case ExportLayout::sparsetral:
      if (method.method == Method::pesc) return;
      refuse(layout, run + ", which has no adapter experts",
             method.method == Method::upcycle ? "use mixtral" : "use merged, peft or gguf");
    case ExportLayout::mixtral:
      if (method.method == Method::upcycle) return;
      refuse(layout, run + "; Mixtral's experts are whole FFNs, as upcycle trains them",
             method.method == Method::pesc ? "use camelidae, sparsetral or adapter" : "use merged or gguf");
    case ExportLayout::gguf:
      if (dense) return;
      refuse(layout,
             run + ", and no program that reads GGUF computes " +
                 (method.method == Method::pesc ? "adapter experts: it would load the dense part and drop them"
                                                : "this router over upcycled experts here yet"),
             method.method == Method::pesc ? "use camelidae, sparsetral or adapter" : "use mixtral");
    case ExportLayout::onnx:
      if (method.method != Method::upcycle) return;
      refuse(layout, run + ", and its graph has a place for adapter experts but not for experts that are whole FFNs",
             "use mixtral");
  }
}

/// What the published modelling code of PESC models has no words for, by layout.
void check_published_code(const ModelConfig& config, ExportLayout layout) {
  const std::string instead = "use adapter, which this program and scripts can load";
  const bool is_qwen = config.family == "qwen2";
  if (layout == ExportLayout::qwen2idae && !is_qwen) {
    refuse(layout, "the base is of the " + config.family + " family, and its code is Qwen2's",
           "use camelidae or sparsetral");
  }
  if (config.qk_norm)
    refuse(layout, "the base normalises queries and keys, which the published code does not", instead);
  if (skips_rotation(config)) {
    refuse(layout, "the base has layers without rotary positions, and the published code rotates all", instead);
  }
  if (config.head_dim * config.num_heads != config.hidden_size) {
    refuse(layout,
           "the base's heads have " + std::to_string(config.head_dim) +
               " elements, and the published code takes them to have hidden_size / num_attention_heads",
           instead);
  }
  if (layout == ExportLayout::qwen2idae) {
    if (config.rope.kind != RopeKind::plain) {
      refuse(layout, "the base scales its rotary positions, which the published code ignores", instead);
    }
    return;
  }
  if (config.qkv_bias || config.o_bias || config.mlp_bias) {
    refuse(layout, "the base's projections have biases, which the published code leaves out",
           is_qwen ? "use qwen2idae" : instead);
  }
  if (layout == ExportLayout::camelidae) {
    if (config.rope_theta != 10000.0) {
      refuse(layout,
             "the base's rope_theta is " + std::to_string(static_cast<int64_t>(config.rope_theta)) +
                 ", and the published code always computes with 10000",
             "use sparsetral, whose code reads rope_theta, or adapter");
    }
    if (is_windowed(config)) {
      refuse(layout, "the base attends through a sliding window, which the published code does not",
             "use sparsetral, or adapter");
    }
    const RopeKind kind = config.rope.kind;
    if (kind != RopeKind::plain && kind != RopeKind::linear && kind != RopeKind::dynamic) {
      refuse(layout, "the base scales its rotary positions in a way that the published code does not know", instead);
    }
    return;
  }
  if (config.rope.kind != RopeKind::plain) {
    refuse(layout, "the base scales its rotary positions, which the published code ignores", instead);
  }
  if (!is_evenly_windowed(config)) {
    refuse(layout, "the base's layers differ in their sliding windows, which the published code does not know",
           instead);
  }
}

void check_mixtral(const ModelConfig& config) {
  const std::string instead = "train from a Llama or Mistral base for this layout";
  const ExportLayout layout = ExportLayout::mixtral;
  if (config.qkv_bias || config.o_bias || config.mlp_bias) {
    refuse(layout, "the base's projections have biases, which Mixtral's have not", instead);
  }
  if (config.qk_norm) refuse(layout, "the base normalises queries and keys, which Mixtral does not", instead);
  if (skips_rotation(config)) refuse(layout, "the base has layers without rotary positions", instead);
  if (config.rope.kind != RopeKind::plain) {
    refuse(layout, "the base scales its rotary positions, which several programs ignore for Mixtral", instead);
  }
  if (!is_evenly_windowed(config)) refuse(layout, "the base's layers differ in their sliding windows", instead);
}

void check_gguf(const ModelConfig& config) {
  const std::string instead = "use merged";
  const ExportLayout layout = ExportLayout::gguf;
  if (config.qk_norm || skips_rotation(config)) {
    refuse(layout,
           "the " + config.family +
               " family is not among those that this program can write and check as GGUF "
               "(llama and qwen2)",
           instead);
  }
  if (is_windowed(config)) {
    refuse(layout, "the base attends through a sliding window, which programs that read GGUF as \"llama\" ignore",
           instead);
  }
  if (config.rope.kind == RopeKind::dynamic) {
    refuse(layout, "the base scales its rotary positions dynamically, which GGUF cannot say", instead);
  }
  if (config.rope.kind == RopeKind::yarn &&
      (config.rope.attention_factor > 0.0 || config.rope.mscale > 0.0 || !config.rope.truncate)) {
    refuse(layout, "the base's yarn scaling has settings that GGUF cannot say", instead);
  }
  if (config.family == "qwen2" && config.o_bias) refuse(layout, "the base has a bias where qwen2 has none", instead);
}

void check_onnx(const ModelConfig& config, ExportType type) {
  if (type != ExportType::f32 && type != ExportType::f16 && type != ExportType::int4) {
    throw EngineError("bad_option", std::string("type is \"") + export_type_name(type) +
                                        "\"; an ONNX file is written as f32, f16 or int4");
  }
  if (config.head_dim % 16 != 0) {
    refuse(ExportLayout::onnx,
           "the base's heads have " + std::to_string(config.head_dim) +
               " elements, and ONNX Runtime's attention rotates heads of a multiple of 16",
           "use merged or adapter");
  }
  if (type != ExportType::int4) return;
  for (const int64_t columns : {config.hidden_size, config.intermediate_size, config.q_size()}) {
    if (columns % 32 == 0) continue;
    refuse(ExportLayout::onnx,
           "the base has matrices of " + std::to_string(columns) + " columns, which blocks of 32 do not divide",
           "use type f16");
  }
}

/// Weights of the dense model in the order of layers. `mlp`: the three FFN projections with them.
void add_dense(const ModelConfig& config, StoredType type, bool mlp, std::vector<ExportTensor>& out, int64_t layer) {
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    out.push_back({name, type, std::move(shape), {name}});
  };
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  add(prefix + "input_layernorm.weight", {config.hidden_size});
  for (const Proj proj : all_projections) {
    if (!mlp && proj >= Proj::gate) continue;
    const std::string name = prefix + projection_name(proj);
    add(name + ".weight", {projection_rows(config, proj), projection_cols(config, proj)});
    if (projection_has_bias(config, proj)) add(name + ".bias", {projection_rows(config, proj)});
  }
  if (config.qk_norm) {
    add(prefix + "self_attn.q_norm.weight", {config.head_dim});
    add(prefix + "self_attn.k_norm.weight", {config.head_dim});
  }
  add(prefix + "post_attention_layernorm.weight", {config.hidden_size});
}

StoredType stored_type(ExportType type) {
  return type == ExportType::f32 ? StoredType::F32 : type == ExportType::f16 ? StoredType::F16 : StoredType::BF16;
}

}  // namespace

int64_t ExportTensor::elements() const { return product(shape); }
uint64_t ExportTensor::bytes() const { return static_cast<uint64_t>(elements()) * stored_type_size(type); }
int64_t GgufExportTensor::elements() const { return product(shape); }
uint64_t GgufExportTensor::bytes() const {
  const GgmlLayout& layout = ggml_layout(type);
  return static_cast<uint64_t>(elements() / layout.block) * layout.bytes;
}

void check_layout(const ModelConfig& config, const MethodOptions& method, ExportLayout layout, ExportType type) {
  check_method(method, layout);
  if (layout == ExportLayout::onnx) {
    check_onnx(config, type);
    return;
  }
  if (layout == ExportLayout::gguf) {
    if (type == ExportType::bf16 || type == ExportType::int4) {
      throw EngineError("bad_option", std::string("type is \"") + export_type_name(type) +
                                          "\"; a GGUF file is written as f32, f16, q8_0 or q4_0");
    }
    check_gguf(config);
    return;
  }
  if (is_quantised(type)) {
    throw EngineError("bad_option", std::string("type is \"") + export_type_name(type) + "\", which " +
                                        (type == ExportType::int4 ? "ONNX" : "GGUF") +
                                        " files alone have; use bf16, f16 or f32");
  }
  if (layout == ExportLayout::camelidae || layout == ExportLayout::qwen2idae || layout == ExportLayout::sparsetral) {
    check_published_code(config, layout);
  }
  if (layout == ExportLayout::mixtral) check_mixtral(config);
  if (layout == ExportLayout::merged && config.rope.kind == RopeKind::divisors) {
    refuse(layout, "the base has a rotary factor of its own for each frequency, which config.json cannot say",
           "use gguf");
  }
}

std::vector<ExportTensor> list_export_tensors(const ModelConfig& config, const MethodOptions& method, DType train_dtype,
                                              ExportLayout layout, ExportType type) {
  std::vector<ExportTensor> tensors;
  if (layout == ExportLayout::peft || layout == ExportLayout::adapter) {
    for (const Parameter& parameter : list_parameters(config, method)) {
      const StoredType kept = train_dtype == DType::f32 ? StoredType::F32 : StoredType::BF16;
      const std::string name = layout == ExportLayout::peft ? peft_tensor_name(parameter.name) : parameter.name;
      tensors.push_back({name, kept, parameter.shape, {parameter.name, true, 0}});
    }
    return tensors;
  }
  const StoredType stored = stored_type(type);
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    tensors.push_back({name, stored, std::move(shape), {name}});
  };
  ModelConfig sparse = config;
  sparse.experts = {method.num_experts, method.top_k, method.has_adapters() ? method.adapter_dim : 0,
                    method.adapter_scale};
  const AdapterSpelling spelling =
      layout == ExportLayout::sparsetral ? AdapterSpelling::indexed : AdapterSpelling::prefixed;
  add("model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    add_dense(config, stored, layout != ExportLayout::mixtral, tensors, layer);
    if (layout == ExportLayout::merged) continue;
    const std::vector<Parameter> parameters = list_parameters(config, method);
    for (const StoredSlices& slices : stored_slices(sparse, layer, spelling)) {
      const auto parameter = std::find_if(parameters.begin(), parameters.end(),
                                          [&](const Parameter& each) { return each.name == slices.parameter; });
      const int64_t parts = static_cast<int64_t>(slices.tensors.size());
      const bool is_router = parameter->shape.size() == 2;
      const std::vector<int64_t> shape(parameter->shape.begin() + (is_router ? 0 : 1), parameter->shape.end());
      for (int64_t part = 0; part < parts; ++part) {
        tensors.push_back({slices.tensors[static_cast<size_t>(part)],
                           stored,
                           shape,
                           {slices.parameter, true, part * (parameter->count / parts)}});
      }
    }
  }
  add("model.norm.weight", {config.hidden_size});
  if (!config.tied_embeddings) add("lm_head.weight", {config.vocab_size, config.hidden_size});
  return tensors;
}

std::vector<GgufExportTensor> list_gguf_tensors(const ModelConfig& config, ExportType type) {
  const GgmlType wide = type == ExportType::f32 ? GgmlType::F32 : GgmlType::F16;
  const GgmlType matrix = type == ExportType::q8_0 ? GgmlType::Q8_0 : type == ExportType::q4_0 ? GgmlType::Q4_0 : wide;
  // Embedding and head suffer most from four bits, as llama.cpp found: they keep eight.
  const GgmlType outer = matrix == GgmlType::Q4_0 ? GgmlType::Q8_0 : matrix;
  std::vector<GgufExportTensor> tensors;
  const auto add = [&](const std::string& name, const std::string& known, GgmlType wanted, std::vector<int64_t> shape,
                       int64_t heads = 0) {
    const bool is_vector = shape.size() == 1;
    const GgmlType kept = is_vector                                       ? GgmlType::F32
                          : shape.back() % ggml_layout(wanted).block == 0 ? wanted
                                                                          : GgmlType::F16;
    tensors.push_back({name, known, kept, std::move(shape), heads});
  };
  const bool interleaved = config.family != "qwen2";
  add("token_embd.weight", "model.embed_tokens.weight", outer, {config.vocab_size, config.hidden_size});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string blk = "blk." + std::to_string(layer) + ".";
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add(blk + "attn_norm.weight", prefix + "input_layernorm.weight", wide, {config.hidden_size});
    add(blk + "ffn_norm.weight", prefix + "post_attention_layernorm.weight", wide, {config.hidden_size});
    static constexpr std::array<const char*, num_projections> names = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                                       "ffn_gate", "ffn_up", "ffn_down"};
    for (const Proj proj : all_projections) {
      const std::string known = prefix + projection_name(proj);
      const std::string name = blk + names[static_cast<size_t>(proj)];
      const int64_t heads = !interleaved      ? 0
                            : proj == Proj::q ? config.num_heads
                            : proj == Proj::k ? config.num_kv_heads
                                              : 0;
      add(name + ".weight", known + ".weight", matrix, {projection_rows(config, proj), projection_cols(config, proj)},
          heads);
      if (projection_has_bias(config, proj)) {
        add(name + ".bias", known + ".bias", wide, {projection_rows(config, proj)}, heads);
      }
    }
  }
  add("output_norm.weight", "model.norm.weight", wide, {config.hidden_size});
  if (!config.tied_embeddings) add("output.weight", "lm_head.weight", outer, {config.vocab_size, config.hidden_size});
  return tensors;
}

}  // namespace caravan
