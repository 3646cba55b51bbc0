#include "addon/tokenizer.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "addon/environment.h"
#include "addon/js_error.h"
#include "addon/options.h"
#include "addon/promise.h"
#include "addon/values.h"
#include "engine/platform/processor.h"

namespace caravan::addon {

namespace {

const napi_type_tag tokenizer_tag = {0x8a1f6c2e94d34b07, 0xb2c58d1e7f60a943};

/// A rough size per token: its text, its place in the tables, its merge.
constexpr int64_t bytes_per_token = 200;

EncodeOptions to_encode_options(Napi::Value value, const char* call, int* threads) {
  EncodeOptions options;
  if (value.IsUndefined()) return options;
  OptionReader reader(value, call);
  options.parse_special = reader.flag_or("parseSpecial", false);
  if (threads != nullptr) *threads = static_cast<int>(reader.integer_or("threads", 0, 1024, 0));
  reader.finish();
  return options;
}

Napi::Value id_to_js(Napi::Env env, std::optional<int32_t> id) { return id ? number(env, int64_t{*id}) : env.Null(); }

struct Batch {
  std::vector<int32_t> ids;
  std::vector<double> offsets;
};

Batch encode_all(const Tokenizer& tokenizer, const std::vector<std::string>& texts, int threads,
                 EncodeOptions options) {
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  const std::vector<std::vector<int32_t>> rows =
      encode_batch(tokenizer, views, threads == 0 ? usable_cores() : threads, options);
  Batch batch;
  batch.offsets = {0.0};
  size_t total = 0;
  for (const auto& row : rows) batch.offsets.push_back(static_cast<double>(total += row.size()));
  batch.ids.reserve(total);
  for (const auto& row : rows) batch.ids.insert(batch.ids.end(), row.begin(), row.end());
  return batch;
}

}  // namespace

Napi::Function TokenizerObject::define(Napi::Env env) {
  using T = TokenizerObject;
  return DefineClass(env, "AddonTokenizer",
                     {InstanceAccessor<&T::vocab_size>("vocabSize"), InstanceAccessor<&T::adds_bos>("addsBos"),
                      InstanceAccessor<&T::adds_eos>("addsEos"), InstanceAccessor<&T::bos_id>("bosId"),
                      InstanceAccessor<&T::eos_id>("eosId"), InstanceMethod<&T::encode>("encode"),
                      InstanceMethod<&T::encode_batch>("encodeBatch"), InstanceMethod<&T::decode>("decode"),
                      InstanceMethod<&T::token_to_id>("tokenToId"), InstanceMethod<&T::id_to_token>("idToToken"),
                      InstanceMethod<&T::is_special>("isSpecial"), InstanceMethod<&T::dispose>("dispose")});
}

Napi::Value TokenizerObject::open(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    using Opened = std::shared_ptr<const Tokenizer>;
    return PromiseWorker<Opened>::run(
        info.Env(), [path = to_text(info[0], "openTokenizer: path")] { return Tokenizer::from_file(path); },
        [](Napi::Env env, const Opened& opened) -> Napi::Value {
          return construct(env, Environment::of(env).tokenizer_class, opened);
        });
  });
}

std::shared_ptr<const Tokenizer> TokenizerObject::from(Napi::Value value, const std::string& what) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&tokenizer_tag)) {
    throw EngineError("bad_option", what + " must be a tokenizer of openTokenizer");
  }
  return Unwrap(value.As<Napi::Object>())->tokenizer();
}

TokenizerObject::TokenizerObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TokenizerObject>(info) {
  tokenizer_ = take_payload<const std::shared_ptr<const Tokenizer>>(info, "openTokenizer");
  info.This().As<Napi::Object>().TypeTag(&tokenizer_tag);
  reported_bytes_ = tokenizer_->vocab_size() * bytes_per_token;
  Napi::MemoryManagement::AdjustExternalMemory(info.Env(), reported_bytes_);
}

void TokenizerObject::Finalize(Napi::BasicEnv env) {
  Napi::MemoryManagement::AdjustExternalMemory(env, -std::exchange(reported_bytes_, 0));
}

const std::shared_ptr<const Tokenizer>& TokenizerObject::tokenizer() const {
  if (tokenizer_ == nullptr) throw EngineError("wrong_state", "this tokenizer is disposed");
  return tokenizer_;
}

Napi::Value TokenizerObject::vocab_size(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return number(info.Env(), int64_t{tokenizer()->vocab_size()}); });
}

Napi::Value TokenizerObject::adds_bos(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return flag(info.Env(), tokenizer()->adds_bos()); });
}

Napi::Value TokenizerObject::adds_eos(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return flag(info.Env(), tokenizer()->adds_eos()); });
}

Napi::Value TokenizerObject::bos_id(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return id_to_js(info.Env(), tokenizer()->bos_id()); });
}

Napi::Value TokenizerObject::eos_id(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return id_to_js(info.Env(), tokenizer()->eos_id()); });
}

Napi::Value TokenizerObject::encode(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const EncodeOptions options = to_encode_options(info[1], "encode", nullptr);
    const std::string words = to_text(info[0], "encode: text");
    return int32_array(info.Env(), tokenizer()->encode(words, options));
  });
}

Napi::Value TokenizerObject::encode_batch(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    int threads = 0;
    const EncodeOptions options = to_encode_options(info[1], "encodeBatch", &threads);
    auto texts = to_texts(info[0], "encodeBatch: texts");
    return PromiseWorker<Batch>::run(
        info.Env(),
        [tokenizer = tokenizer(), texts = std::move(texts), threads, options] {
          return encode_all(*tokenizer, texts, threads, options);
        },
        [](Napi::Env env, const Batch& batch) -> Napi::Value {
          const Napi::Object result = Napi::Object::New(env);
          result.Set("ids", int32_array(env, batch.ids));
          result.Set("offsets", float64_array(env, batch.offsets));
          return result;
        });
  });
}

Napi::Value TokenizerObject::decode(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const std::vector<int32_t> ids = to_ids(info[0], "decode: ids");
    bool skip_special = false;
    if (!info[1].IsUndefined()) {
      OptionReader reader(info[1], "decode");
      skip_special = reader.flag_or("skipSpecial", false);
      reader.finish();
    }
    return text(info.Env(), tokenizer()->decode(ids, skip_special));
  });
}

Napi::Value TokenizerObject::token_to_id(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return id_to_js(info.Env(), tokenizer()->token_to_id(to_text(info[0], "tokenToId: token")));
  });
}

Napi::Value TokenizerObject::id_to_token(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto id = static_cast<int32_t>(to_integer(info[0], "idToToken: id", -max_count, max_count));
    const std::string token = tokenizer()->id_to_token(id);
    return token.empty() ? info.Env().Null() : text(info.Env(), token);
  });
}

Napi::Value TokenizerObject::is_special(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const auto id = static_cast<int32_t>(to_integer(info[0], "isSpecial: id", -max_count, max_count));
    return flag(info.Env(), tokenizer()->is_special(id));
  });
}

Napi::Value TokenizerObject::dispose(const Napi::CallbackInfo& info) {
  tokenizer_.reset();
  Napi::MemoryManagement::AdjustExternalMemory(info.Env(), -std::exchange(reported_bytes_, 0));
  return info.Env().Undefined();
}

}  // namespace caravan::addon
