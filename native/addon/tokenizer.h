// AddonTokenizer of core/engine/AddonTypes.ts.
#pragma once

#include <memory>

#include <napi.h>

#include "engine/data/tokenizer.h"

namespace caravan::addon {

class TokenizerObject : public Napi::ObjectWrap<TokenizerObject> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value open(const Napi::CallbackInfo& info);
  /// The tokenizer behind a JavaScript value. @throws EngineError bad_option where it is none, wrong_state once disposed
  static std::shared_ptr<const Tokenizer> from(Napi::Value value, const std::string& what);

  explicit TokenizerObject(const Napi::CallbackInfo& info);
  void Finalize(Napi::BasicEnv env) override;

 private:
  const std::shared_ptr<const Tokenizer>& tokenizer() const;
  Napi::Value vocab_size(const Napi::CallbackInfo& info);
  Napi::Value adds_bos(const Napi::CallbackInfo& info);
  Napi::Value adds_eos(const Napi::CallbackInfo& info);
  Napi::Value bos_id(const Napi::CallbackInfo& info);
  Napi::Value eos_id(const Napi::CallbackInfo& info);
  Napi::Value encode(const Napi::CallbackInfo& info);
  Napi::Value encode_batch(const Napi::CallbackInfo& info);
  Napi::Value decode(const Napi::CallbackInfo& info);
  Napi::Value token_to_id(const Napi::CallbackInfo& info);
  Napi::Value id_to_token(const Napi::CallbackInfo& info);
  Napi::Value is_special(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<const Tokenizer> tokenizer_;  // null once disposed
  int64_t reported_bytes_ = 0;                  // to V8, as memory outside its own
};

}  // namespace caravan::addon
