// config.json of each layout, with the keys that its readers look for.
#include <nlohmann/json.hpp>

#include "engine/export/layouts.h"

namespace caravan {

namespace {

using Json = nlohmann::ordered_json;

const char* torch_name(ExportType type) {
  return type == ExportType::f32 ? "float32" : type == ExportType::f16 ? "float16" : "bfloat16";
}

Json window_of(const ModelConfig& config) { return config.windows[0] > 0 ? Json(config.windows[0]) : Json(nullptr); }

/// One published family: its files of code and their classes.
struct Published {
  const char* model_type;
  const char* config_class;
  const char* model_class;
  const char* causal_class;
};

Published published(ExportLayout layout) {
  switch (layout) {
    case ExportLayout::qwen2idae: return {"qwen2idae", "Qwen2idaeConfig", "Qwen2Model", "Qwen2ForCausalLM"};
    case ExportLayout::sparsetral: return {"sparsetral", "SparsetralConfig", "MistralModel", "MistralForCausalLM"};
    default: return {"camelidae", "CamelidaeConfig", "LlamaModel", "LlamaForCausalLM"};
  }
}

void write_published(const ModelConfig& config, const MethodOptions& method, ExportLayout layout, ExportType type,
                     Json& json) {
  const Published names = published(layout);
  const std::string modeling = std::string("modeling_") + names.model_type + ".";
  json["architectures"] = {modeling + names.causal_class};
  json["model_type"] = names.model_type;
  json["auto_map"] = {{"AutoConfig", std::string("configuration_") + names.model_type + "." + names.config_class},
                      {"AutoModel", modeling + names.model_class},
                      {"AutoModelForCausalLM", modeling + names.causal_class}};
  json["adapter_dim"] = method.adapter_dim;
  json["moe_scaling"] = method.adapter_scale;
  json["num_experts"] = method.num_experts;
  json["topk"] = method.top_k;
  json["moe_dtype"] = torch_name(type);
  json["output_router_logits"] = false;
  json["use_cache"] = true;
  for (const char* key : {"head_dim", "attention_bias", "mlp_bias"}) json.erase(key);
  if (layout == ExportLayout::camelidae) {
    json.erase("rope_theta");  // its code has no such key: it always takes 10000
    json["pretraining_tp"] = 1;
    // Its configuration class takes exactly these two keys.
    if (json["rope_scaling"].is_object()) {
      const Json type_name = json["rope_scaling"]["rope_type"], factor = json["rope_scaling"]["factor"];
      json["rope_scaling"] = {{"type", type_name}, {"factor", factor}};
    }
    return;
  }
  json.erase("rope_scaling");
  json["attention_dropout"] = 0.0;
  if (layout == ExportLayout::sparsetral) {
    json["sliding_window"] = window_of(config);
    json["adapter_dropout"] = 0.0;
    json["router_aux_loss_coef"] = method.balance_coefficient;
  } else if (!json.contains("sliding_window")) {
    json["sliding_window"] = config.max_positions;
    json["use_sliding_window"] = false;
    json["max_window_layers"] = config.num_layers;
  }
}

void write_mixtral(const ModelConfig& config, const MethodOptions& method, Json& json) {
  json["architectures"] = {"MixtralForCausalLM"};
  json["model_type"] = "mixtral";
  json["num_local_experts"] = method.num_experts;
  json["num_experts_per_tok"] = method.top_k;
  json["router_aux_loss_coef"] = method.balance_coefficient;
  json["output_router_logits"] = false;
  json["sliding_window"] = window_of(config);
  for (const char* key : {"rope_scaling", "attention_bias", "mlp_bias"}) json.erase(key);
}

}  // namespace

std::string write_layout_config(const ModelConfig& config, const MethodOptions& method, ExportLayout layout,
                                ExportType type) {
  if (layout == ExportLayout::merged) return write_model_config(config, torch_name(type));
  Json json = Json::parse(write_model_config(config, torch_name(type)));
  if (layout == ExportLayout::mixtral) {
    write_mixtral(config, method, json);
  } else {
    write_published(config, method, layout, type, json);
  }
  return json.dump(2) + "\n";
}

std::string layout_notes(ExportLayout layout) {
  const auto note = [](const char* family, const char* repository, const char* versions) {
    return std::string("# Loading this model\n\nThe tensors and config.json are in the layout of ") + repository +
           " on the Hugging Face hub. Its code is not part of this export: copy configuration_" + family +
           ".py and modeling_" + family + ".py from that repository into this folder and load it with\n\n" +
           "    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)\n\nThe code is the publisher's. " +
           versions + "\n\nCaravan loads this folder as it is.\n";
  };
  const char* named =
      "It wants the version of transformers that the config.json over there names (transformers_version).";
  if (layout == ExportLayout::camelidae) {
    return note("camelidae", "hywu/Camelidae-8x7B",
                "It was written for transformers 4.34 and uses functions that later versions removed.");
  }
  if (layout == ExportLayout::qwen2idae) return note("qwen2idae", "hywu/Qwen2idae-16x14B-v1.0", named);
  if (layout == ExportLayout::sparsetral) return note("sparsetral", "serpdotai/sparsetral-16x7B-v2", named);
  return {};
}

}  // namespace caravan
