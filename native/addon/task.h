// A thread that tells on its way and ends in a promise: an answer's tokens, a hash's progress.
#pragma once

#include <functional>
#include <memory>
#include <thread>

#include <napi.h>

#include "addon/courier.h"
#include "addon/environment.h"
#include "engine/platform/error.h"

namespace caravan::addon {

class Task final : public Running {
 public:
  /// Settles the promise, on the JavaScript thread; may throw, which rejects it.
  using Settle = std::function<Napi::Value(Napi::Env)>;
  struct Parts {
    /// On the task's thread; returns what the promise will be. Its exception rejects the promise.
    std::function<Settle(Courier&)> work;
    /// From any thread: asks `work` to end soon. May be empty.
    std::function<void()> cancel;
    /// On the JavaScript thread before the promise settles; not when the environment ends. May be empty.
    std::function<void()> ended;
    /// What `work` and its messages point to; destroyed on the JavaScript thread, and so may hold references.
    std::shared_ptr<void> kept;
  };

  static Napi::Promise start(Napi::Env env, Parts parts);
  void stop_and_join() override;

 private:
  Task(Napi::Env env, Parts parts);
  void finish(Napi::Env env, const Settle& settle);

  Napi::Promise::Deferred deferred_;
  Parts parts_;
  std::shared_ptr<Courier> courier_;
  std::thread thread_;
};

}  // namespace caravan::addon
