#include "addon/generation.h"

#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "addon/options.h"
#include "addon/task.h"
#include "addon/tokenizer.h"
#include "addon/values.h"

namespace caravan::addon {

namespace {

/// What a generation keeps of JavaScript; used and destroyed on the JavaScript thread alone.
struct Listener {
  Napi::FunctionReference on_token;
  std::optional<Napi::Error> thrown;  // by on_token; nothing is told after that
};

Napi::Value token_to_js(Napi::Env env, const GeneratedToken& token) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("id", number(env, int64_t{token.id}));
  result.Set("text", token.text);
  result.Set("logprob", number(env, token.logprob));
  if (!token.experts.empty()) {
    result.Set("experts", int32_array(env, token.experts));
    result.Set("expertWeights", float32_array(env, token.expert_weights));
  }
  return result;
}

Napi::Value result_to_js(Napi::Env env, const GenerateResult& generated) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("ids", int32_array(env, generated.ids));
  result.Set("text", generated.text);
  result.Set("stopReason", stop_reason_name(generated.stop_reason));
  result.Set("promptTokens", number(env, generated.prompt_tokens));
  result.Set("promptMs", number(env, generated.prompt_ms));
  result.Set("generateMs", number(env, generated.generate_ms));
  result.Set("tokensPerSecond", number(env, generated.tokens_per_second));
  return result;
}

void tell(Napi::Env env, Listener& listener, std::atomic<bool>& cancelled, const GeneratedToken& token) {
  if (listener.thrown) return;
  try {
    listener.on_token.Call({token_to_js(env, token)});
  } catch (const Napi::Error& error) {
    listener.thrown = error;
    cancelled.store(true);
  }
}

}  // namespace

GenerationRequest to_generation_request(Napi::Value value) {
  OptionReader reader(value, "generate");
  GenerationRequest request;
  request.id = reader.text("generationId");
  GenerateOptions& options = request.options;
  options.prompt_ids = to_ids(reader.required("promptIds"), reader.name("promptIds"));
  options.max_tokens = reader.integer("maxTokens", 1, max_count);
  SamplingOptions& sampling = options.sampling;
  sampling.temperature = static_cast<float>(reader.number("temperature"));
  sampling.top_k = reader.integer_or("topK", 0, max_count, 0);
  sampling.top_p = static_cast<float>(reader.number_or("topP", 1.0));
  sampling.min_p = static_cast<float>(reader.number_or("minP", 0.0));
  sampling.repetition_penalty = static_cast<float>(reader.number_or("repetitionPenalty", 1.0));
  sampling.seed = static_cast<uint32_t>(reader.integer_or("seed", 0, std::numeric_limits<uint32_t>::max(), 0));
  options.stop_ids = to_ids(reader.required("stopIds"), reader.name("stopIds"));
  if (const auto strings = reader.optional("stopStrings")) {
    options.stop_strings = to_texts(*strings, reader.name("stopStrings"));
  }
  options.tokenizer = TokenizerObject::from(reader.required("tokenizer"), reader.name("tokenizer"));
  options.report_experts = reader.flag_or("reportExperts", false);
  reader.finish();
  return request;
}

Napi::Promise start_generation(Napi::Env env, std::shared_ptr<InferenceModel> model, GenerateOptions options,
                               std::shared_ptr<std::atomic<bool>> cancelled, Napi::Function on_token,
                               std::function<void()> ended) {
  const auto listener = std::make_shared<Listener>();
  listener->on_token = Napi::Persistent(on_token);
  options.cancelled = cancelled.get();
  const auto work = [model = std::move(model), options = std::move(options), cancelled,
                     raw = listener.get()](Courier& courier) -> Task::Settle {
    GenerateResult result = model->generate(options, [&](const GeneratedToken& token) {
      courier.send([raw, cancelled, token](Napi::Env e) { tell(e, *raw, *cancelled, token); });
    });
    return [raw, result = std::move(result)](Napi::Env e) {
      if (raw->thrown) throw Napi::Error(*raw->thrown);
      return result_to_js(e, result);
    };
  };
  return Task::start(
      env,
      {.work = work, .cancel = [cancelled] { cancelled->store(true); }, .ended = std::move(ended), .kept = listener});
}

}  // namespace caravan::addon
