// What core/engine/AddonTypes.ts says about ONNX: the numbers of a graph and what it must compute, and answers whose logits
// come from elsewhere.
#pragma once

#include <memory>

#include <napi.h>

#include "engine/infer/answer.h"

namespace caravan::addon {

Napi::Value describe_onnx_export(const Napi::CallbackInfo& info);
Napi::Value export_onnx(const Napi::CallbackInfo& info);
Napi::Value compare_model_logits(const Napi::CallbackInfo& info);

/// AddonAnswer.
class AnswerObject : public Napi::ObjectWrap<AnswerObject> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value create(const Napi::CallbackInfo& info);

  explicit AnswerObject(const Napi::CallbackInfo& info);

  struct Open {
    Answer answer;
    int64_t vocab_size;
  };

 private:
  Napi::Value next(const Napi::CallbackInfo& info);

  std::shared_ptr<Open> open_;
};

}  // namespace caravan::addon
