#include "addon/inference.h"

#include <string>
#include <utility>
#include <vector>

#include "addon/generation.h"
#include "addon/js_error.h"
#include "addon/model_summary.h"
#include "addon/options.h"
#include "addon/promise.h"
#include "addon/train_options.h"
#include "addon/values.h"

namespace caravan::addon {

namespace {

OpenModelOptions to_open_options(Napi::Value value) {
  OptionReader reader(value, "openModel");
  OpenModelOptions options;
  options.model_dir = reader.text("modelDir");
  options.base_dtype = to_base_dtype(reader.text("baseDtype"), reader.name("baseDtype"));
  options.compute_dtype = to_dtype(reader.text("computeDtype"), reader.name("computeDtype"));
  options.double_quant = reader.flag_or("doubleQuant", true);
  options.checkpoint_dir = reader.text_or("checkpointDir", {});
  options.threads = static_cast<int>(reader.integer_or("threads", 0, 4096, 0));
  options.device = to_device(reader.text_or("device", "cpu"), reader.name("device"));
  reader.finish();
  return options;
}

/// One number per row.
std::vector<int64_t> to_row_numbers(Napi::Value value, const std::string& what, size_t rows) {
  const std::vector<int32_t> numbers = to_ids(value, what);
  if (numbers.size() != rows) {
    throw EngineError("bad_option", what + " holds " + std::to_string(numbers.size()) + " numbers for " +
                                        std::to_string(rows) + " rows");
  }
  return {numbers.begin(), numbers.end()};
}

Napi::Value scores_to_js(Napi::Env env, const std::vector<ScoreResult>& scores) {
  return array_of(env, scores, [](Napi::Env e, const ScoreResult& score) {
    const Napi::Object item = Napi::Object::New(e);
    item.Set("logprob", number(e, score.logprob));
    item.Set("tokenLogprobs", float64_array(e, score.token_logprobs));
    item.Set("greedy", score.greedy);
    return item;
  });
}

Napi::Value route_to_js(Napi::Env env, const RouteResult& route) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("layers", number(env, route.layers));
  result.Set("experts", number(env, route.experts));
  result.Set("groups", number(env, route.groups));
  result.Set("first", float64_array(env, route.first));
  result.Set("second", float64_array(env, route.second));
  result.Set("any", float64_array(env, route.any));
  result.Set("tokens", float64_array(env, route.tokens));
  return result;
}

Napi::Value token_routes_to_js(Napi::Env env, const TokenRoutes& routes) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("layers", number(env, routes.layers));
  result.Set("experts", number(env, routes.experts));
  result.Set("topK", number(env, routes.top_k));
  result.Set("chosen", int32_array(env, routes.chosen));
  result.Set("weights", float32_array(env, routes.weights));
  return result;
}

}  // namespace

std::vector<std::vector<int32_t>> to_rows(Napi::Value value, const std::string& what) {
  if (!value.IsArray()) throw EngineError("bad_option", what + " must be an array of Int32Arrays");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<std::vector<int32_t>> rows;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::HandleScope scope(value.Env());
    rows.push_back(to_ids(array[i], what + "[" + std::to_string(i) + "]"));
  }
  return rows;
}

Napi::Function ModelObject::define(Napi::Env env) {
  using T = ModelObject;
  return DefineClass(env, "AddonModel",
                     {InstanceAccessor<&T::summary>("summary"), InstanceAccessor<&T::num_experts>("numExperts"),
                      InstanceAccessor<&T::top_k>("topK"), InstanceAccessor<&T::memory_bytes>("memoryBytes"),
                      InstanceMethod<&T::generate>("generate"), InstanceMethod<&T::cancel>("cancel"),
                      InstanceMethod<&T::score>("score"), InstanceMethod<&T::route>("route"),
                      InstanceMethod<&T::route_tokens>("routeTokens"), InstanceMethod<&T::logits>("logits"),
                      InstanceMethod<&T::dispose>("dispose")});
}

Napi::Value ModelObject::open(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<OpenedModel>::run(
        info.Env(),
        [options = to_open_options(info[0])] {
          return OpenedModel{InferenceModel::open(options), summarize_model(options.model_dir)};
        },
        [](Napi::Env env, const OpenedModel& opened) -> Napi::Value {
          return construct(env, Environment::of(env).model_class, opened);
        });
  });
}

ModelObject::ModelObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ModelObject>(info) {
  const OpenedModel& opened = take_payload<const OpenedModel>(info, "openModel");
  model_ = opened.model;
  summary_ = opened.summary;
  report_memory(info.Env(), static_cast<int64_t>(model_->memory_bytes()));
}

void ModelObject::Finalize(Napi::BasicEnv env) { report_memory(env, 0); }

/// So that V8 collects models that nobody holds any more, small as they look from its side.
void ModelObject::report_memory(Napi::BasicEnv env, int64_t bytes) {
  Napi::MemoryManagement::AdjustExternalMemory(env, bytes - std::exchange(reported_bytes_, bytes));
}

const std::shared_ptr<InferenceModel>& ModelObject::model() const {
  if (model_ == nullptr) throw EngineError("wrong_state", "this model is disposed");
  return model_;
}

Napi::Value ModelObject::summary(const Napi::CallbackInfo& info) { return summary_to_js(info.Env(), summary_); }

Napi::Value ModelObject::num_experts(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return number(info.Env(), model()->num_experts()); });
}

Napi::Value ModelObject::top_k(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return number(info.Env(), model()->top_k()); });
}

Napi::Value ModelObject::memory_bytes(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return number(info.Env(), static_cast<int64_t>(model()->memory_bytes())); });
}

Napi::Value ModelObject::generate(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    GenerationRequest request = to_generation_request(info[0]);
    const Napi::Function on_token = to_function(info[1], "generate: onToken");
    const std::shared_ptr<InferenceModel> used = model();
    const auto cancelled = std::make_shared<std::atomic<bool>>(false);
    const std::string id = request.id;
    if (under_way_->count(id) != 0) {
      throw EngineError("bad_option", "generate: generationId \"" + id + "\" is that of a generation under way");
    }
    const Napi::Promise promise = start_generation(info.Env(), used, std::move(request.options), cancelled, on_token,
                                                   [flags = under_way_, id] { flags->erase(id); });
    under_way_->emplace(id, cancelled);
    return promise;
  });
}

Napi::Value ModelObject::cancel(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const auto found = under_way_->find(to_text(info[0], "cancel: generationId"));
    if (found != under_way_->end()) found->second->store(true);
    return info.Env().Undefined();
  });
}

Napi::Value ModelObject::score(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    auto rows = to_rows(info[0], "score: rows");
    auto first = to_row_numbers(info[1], "score: firstScored", rows.size());
    return PromiseWorker<std::vector<ScoreResult>>::run(
        info.Env(),
        [used = model(), rows = std::move(rows), first = std::move(first)] { return used->score(rows, first); },
        scores_to_js);
  });
}

Napi::Value ModelObject::route(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    auto rows = to_rows(info[0], "route: rows");
    auto group = to_row_numbers(info[1], "route: group", rows.size());
    const int64_t groups = to_integer(info[2], "route: groups", 1, max_count);
    return PromiseWorker<RouteResult>::run(
        info.Env(),
        [used = model(), rows = std::move(rows), group = std::move(group), groups] {
          return used->route(rows, group, groups);
        },
        route_to_js);
  });
}

Napi::Value ModelObject::route_tokens(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<TokenRoutes>::run(
        info.Env(), [used = model(), row = to_ids(info[0], "routeTokens: row")] { return used->route_tokens(row); },
        token_routes_to_js);
  });
}

Napi::Value ModelObject::logits(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<std::vector<float>>::run(
        info.Env(), [used = model(), row = to_ids(info[0], "logits: row")] { return used->logits(row); },
        [](Napi::Env env, const std::vector<float>& values) { return float32_array(env, values); });
  });
}

Napi::Value ModelObject::dispose(const Napi::CallbackInfo& info) {
  for (const auto& [id, cancelled] : *under_way_) cancelled->store(true);
  model_.reset();
  report_memory(info.Env(), 0);
  return info.Env().Undefined();
}

}  // namespace caravan::addon
