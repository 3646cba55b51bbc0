// AddonModel of core/engine/AddonTypes.ts.
#pragma once

#include <map>
#include <memory>
#include <string>

#include <napi.h>

#include "addon/environment.h"
#include "engine/infer/inference_model.h"
#include "engine/model/model_summary.h"

namespace caravan::addon {

struct OpenedModel {
  std::shared_ptr<InferenceModel> model;
  ModelSummary summary;
};

/// Work under way holds the model itself, not this object: so either may go first.
class ModelObject : public Napi::ObjectWrap<ModelObject> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value open(const Napi::CallbackInfo& info);

  explicit ModelObject(const Napi::CallbackInfo& info);
  void Finalize(Napi::BasicEnv env) override;

 private:
  Napi::Value summary(const Napi::CallbackInfo& info);
  Napi::Value num_experts(const Napi::CallbackInfo& info);
  Napi::Value top_k(const Napi::CallbackInfo& info);
  Napi::Value memory_bytes(const Napi::CallbackInfo& info);
  Napi::Value generate(const Napi::CallbackInfo& info);
  Napi::Value cancel(const Napi::CallbackInfo& info);
  Napi::Value score(const Napi::CallbackInfo& info);
  Napi::Value route(const Napi::CallbackInfo& info);
  Napi::Value route_tokens(const Napi::CallbackInfo& info);
  Napi::Value logits(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  const std::shared_ptr<InferenceModel>& model() const;
  void report_memory(Napi::BasicEnv env, int64_t bytes);

  using Flags = std::map<std::string, std::shared_ptr<std::atomic<bool>>>;
  std::shared_ptr<InferenceModel> model_;  // null once disposed
  ModelSummary summary_;
  /// By generation id: set to end that generation. Shared with the generations, which outlive this object.
  std::shared_ptr<Flags> under_way_ = std::make_shared<Flags>();
  int64_t reported_bytes_ = 0;  // to V8, as memory outside its own
};

/// An array of Int32Arrays.
std::vector<std::vector<int32_t>> to_rows(Napi::Value value, const std::string& what);

}  // namespace caravan::addon
