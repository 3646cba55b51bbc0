// What one JavaScript environment (a process, or a worker thread in it) holds; nothing in this addon is global.
#pragma once

#include <memory>
#include <set>
#include <string>

#include <napi.h>

namespace caravan::addon {

/// Something with a thread of its own.
class Running {
 public:
  virtual ~Running() = default;
  /// Asks the thread to end, and waits for it; nothing reaches JavaScript any more. Called as the environment ends.
  virtual void stop_and_join() = 0;
};

struct Environment {
  Napi::FunctionReference tokenizer_class;
  Napi::FunctionReference near_duplicates_class;
  Napi::FunctionReference overlap_class;
  Napi::FunctionReference model_class;
  Napi::FunctionReference trainer_class;
  Napi::FunctionReference answer_class;
  std::set<Running*> running;
  /// Set while this addon itself constructs an object: the classes cannot be constructed from JavaScript, whose
  /// `object.constructor` would otherwise make objects around nothing.
  const void* constructing = nullptr;

  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }
};

/// Constructs an object of a class of this addon; its constructor takes `payload` by `take_payload`.
template <typename Payload>
Napi::Object construct(Napi::Env env, const Napi::FunctionReference& constructor, Payload& payload) {
  Environment& environment = Environment::of(env);
  environment.constructing = &payload;
  const Napi::Object object = constructor.New({});
  environment.constructing = nullptr;
  return object;
}

/// @throws Napi::TypeError where JavaScript called the constructor
template <typename Payload>
Payload& take_payload(const Napi::CallbackInfo& info, const char* how) {
  Environment& environment = Environment::of(info.Env());
  const void* payload = environment.constructing;
  environment.constructing = nullptr;
  if (payload == nullptr) throw Napi::TypeError::New(info.Env(), std::string("only ") + how + " makes these objects");
  return *const_cast<Payload*>(static_cast<const Payload*>(payload));
}

}  // namespace caravan::addon
