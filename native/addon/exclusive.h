// A native object that several calls of JavaScript share, one at a time.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include <napi.h>

#include "addon/promise.h"
#include "engine/platform/error.h"

namespace caravan::addon {

/// One call at a time works on it, for what it holds is numbered in the order of the calls.
template <typename T>
struct Exclusive {
  template <typename Options>
  explicit Exclusive(const Options& options) : value(options) {}

  T value;
  std::atomic<bool> busy{false};
};

/// Runs work(value) off the JavaScript thread. @param what as in "another call works on `what`"
/// @throws EngineError wrong_state while another call is under way
template <typename Result, typename T, typename Work>
Napi::Value run_alone(Napi::Env env, const std::shared_ptr<Exclusive<T>>& object, const char* what, Work work,
                      typename PromiseWorker<Result>::Convert convert) {
  if (object->busy.exchange(true)) {
    throw EngineError("wrong_state", std::string("another call works on ") + what + "; await it first");
  }
  return PromiseWorker<Result>::run(
      env,
      [object, work = std::move(work)] {
        struct Idle {
          std::atomic<bool>& busy;
          ~Idle() { busy = false; }
        } const idle{object->busy};
        return work(object->value);
      },
      std::move(convert));
}

}  // namespace caravan::addon
