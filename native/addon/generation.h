// One answer under way: its options, its tokens on their way to JavaScript, its result.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include <napi.h>

#include "engine/infer/inference_model.h"

namespace caravan::addon {

struct GenerationRequest {
  std::string id;
  GenerateOptions options;  // `cancelled` is set by start_generation
};
/// @throws EngineError bad_option naming the field
GenerationRequest to_generation_request(Napi::Value value);

/// Answers on a thread of its own, and calls `on_token` in order on the JavaScript thread. An exception of `on_token` ends
/// the generation and is what the promise rejects with. `ended` is called before the promise settles.
Napi::Promise start_generation(Napi::Env env, std::shared_ptr<InferenceModel> model, GenerateOptions options,
                               std::shared_ptr<std::atomic<bool>> cancelled, Napi::Function on_token,
                               std::function<void()> ended);

}  // namespace caravan::addon
