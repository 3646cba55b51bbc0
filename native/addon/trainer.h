// AddonTrainer of core/engine/AddonTypes.ts.
#pragma once

#include <memory>
#include <optional>
#include <variant>

#include <napi.h>

#include "addon/courier.h"
#include "addon/environment.h"
#include "engine/train/trainer.h"

namespace caravan::addon {

/// While its run lives, the object keeps itself, its listener and the event loop alive.
class TrainerObject : public Napi::ObjectWrap<TrainerObject>, public Running {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value create(const Napi::CallbackInfo& info);

  explicit TrainerObject(const Napi::CallbackInfo& info);
  void stop_and_join() override;

 private:
  Napi::Value start(const Napi::CallbackInfo& info);
  Napi::Value pause(const Napi::CallbackInfo& info);
  Napi::Value resume(const Napi::CallbackInfo& info);
  Napi::Value stop(const Napi::CallbackInfo& info);
  Napi::Value state(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  /// On the trainer's thread.
  TrainListener listener_that_sends();
  /// On the JavaScript thread: calls the listener's `method`.
  void tell(const char* method, std::initializer_list<napi_value> arguments);
  void finish(Napi::Env env, const std::variant<TrainResult, EngineError>& outcome);
  Trainer& trainer() const;

  std::unique_ptr<Trainer> trainer_;
  Napi::ObjectReference listener_;
  std::shared_ptr<Courier> courier_;                 // while the run lives
  std::optional<Napi::Promise::Deferred> deferred_;  // while the run lives
  bool disposed_ = false;
};

}  // namespace caravan::addon
