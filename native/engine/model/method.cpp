#include "engine/model/method.h"

#include "kernels/error.h"

namespace caravan {

const char* method_name(Method method) {
  switch (method) {
    case Method::base: return "base";
    case Method::lora: return "lora";
    case Method::pesc: return "pesc";
    case Method::full: return "full";
    case Method::upcycle: return "upcycle";
  }
  return "base";
}

Method parse_method(const std::string& name) {
  for (const Method method : {Method::lora, Method::pesc, Method::full, Method::upcycle}) {
    if (name == method_name(method)) return method;
  }
  throw EngineError("bad_option", "method is \"" + name + "\"; it must be pesc, lora, full or upcycle");
}

namespace {

void require(bool holds, const std::string& message) {
  if (!holds) throw EngineError("bad_option", message);
}

void require_dropout(float p, const char* field) {
  require(p >= 0.0f && p < 1.0f,
          std::string(field) + " is " + std::to_string(p) + "; it must be at least 0 and below 1");
}

}  // namespace

void check_method_options(const MethodOptions& options) {
  if (options.method == Method::lora || options.method == Method::pesc) {
    require(options.lora_rank >= 1, "loraRank is " + std::to_string(options.lora_rank) + "; it must be at least 1");
    require(options.lora_alpha > 0.0f, "loraAlpha is " + std::to_string(options.lora_alpha) + "; it must be above 0");
    require_dropout(options.lora_dropout, "loraDropout");
  }
  if (options.has_experts()) {
    require(options.num_experts >= 1,
            "numExperts is " + std::to_string(options.num_experts) + "; it must be at least 1");
    require(options.top_k >= 1 && options.top_k <= options.num_experts, "topK is " + std::to_string(options.top_k) +
                                                                            "; it must be from 1 to numExperts (" +
                                                                            std::to_string(options.num_experts) + ")");
    require(options.balance_coefficient >= 0.0f,
            "balanceCoefficient is " + std::to_string(options.balance_coefficient) + "; it must be 0 or above");
  }
  if (options.has_adapters()) {
    require(options.adapter_dim >= 1,
            "adapterDim is " + std::to_string(options.adapter_dim) + "; it must be at least 1");
    require_dropout(options.adapter_dropout, "adapterDropout");
  }
}

}  // namespace caravan
