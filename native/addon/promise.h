// Work off the JavaScript thread that ends in a promise. For work of bounded length, on libuv's threads; what streams or
// lasts uses a Courier.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include <napi.h>

#include "addon/js_error.h"

namespace caravan::addon {

/// Deletes itself when it has settled its promise.
template <typename Result>
class PromiseWorker : public Napi::AsyncWorker {
 public:
  using Work = std::function<Result()>;                                  // on another thread: no JavaScript value there
  using Convert = std::function<Napi::Value(Napi::Env, const Result&)>;  // on the JavaScript thread

  static Napi::Promise run(Napi::Env env, Work work, Convert convert) {
    auto* worker = new PromiseWorker(env, std::move(work), std::move(convert));
    const Napi::Promise promise = worker->deferred_.Promise();
    worker->Queue();
    return promise;
  }

 private:
  PromiseWorker(Napi::Env env, Work work, Convert convert)
      : Napi::AsyncWorker(env, "caravan"),
        deferred_(Napi::Promise::Deferred::New(env)),
        work_(std::move(work)),
        convert_(std::move(convert)) {}

  void Execute() override {
    try {
      result_.emplace(work_());
    } catch (...) {
      error_ = std::current_exception();
    }
    work_ = nullptr;  // what it holds may be large: it ends here, not when the event loop comes round
  }

  void OnOK() override {
    const Napi::HandleScope scope(Env());
    if (!error_) {
      try {
        deferred_.Resolve(convert_(Env(), *result_));
        return;
      } catch (const Napi::Error& error) {
        deferred_.Reject(error.Value());
        return;
      } catch (...) {
        error_ = std::current_exception();
      }
    }
    deferred_.Reject(to_js_error(Env(), as_engine_error(error_)).Value());
  }

  Napi::Promise::Deferred deferred_;
  Work work_;
  Convert convert_;
  std::optional<Result> result_;
  std::exception_ptr error_;
};

/// `start` reads its arguments and returns a promise; what it throws becomes a rejection, so that a caller has one place
/// to look for errors.
template <typename Start>
Napi::Value promised(Napi::Env env, Start&& start) {
  const auto reject = [&](Napi::Value reason) -> Napi::Value {
    const Napi::Promise::Deferred deferred = Napi::Promise::Deferred::New(env);
    deferred.Reject(reason);
    return deferred.Promise();
  };
  try {
    return std::forward<Start>(start)();
  } catch (const Napi::Error& error) {
    return reject(error.Value());
  } catch (...) {
    return reject(to_js_error(env, as_engine_error(std::current_exception())).Value());
  }
}

}  // namespace caravan::addon
