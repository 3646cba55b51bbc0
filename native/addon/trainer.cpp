#include "addon/trainer.h"

#include <array>
#include <string>
#include <utility>

#include "addon/js_error.h"
#include "addon/options.h"
#include "addon/promise.h"
#include "addon/train_metrics.h"
#include "addon/train_options.h"
#include "addon/values.h"

namespace caravan::addon {

namespace {

constexpr std::array listener_methods = {"onPhase",      "onLoading",    "onOpened", "onStep",
                                         "onEvaluation", "onCheckpoint", "onLog"};

struct Creation {
  TrainOptions options;
  Napi::Object listener;
};

Napi::Object to_listener(Napi::Value value) {
  OptionReader reader(value, "createTrainer: listener");
  for (const char* method : listener_methods) to_function(reader.required(method), reader.name(method));
  return value.As<Napi::Object>();  // other members are its own affair
}

}  // namespace

Napi::Function TrainerObject::define(Napi::Env env) {
  using T = TrainerObject;
  return DefineClass(
      env, "AddonTrainer",
      {InstanceMethod<&T::start>("start"), InstanceMethod<&T::pause>("pause"), InstanceMethod<&T::resume>("resume"),
       InstanceMethod<&T::stop>("stop"), InstanceAccessor<&T::state>("state"), InstanceMethod<&T::dispose>("dispose")});
}

Napi::Value TrainerObject::create(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Creation creation{to_train_options(info[0], "createTrainer"), to_listener(info[1])};
    return construct(info.Env(), Environment::of(info.Env()).trainer_class, creation);
  });
}

TrainerObject::TrainerObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TrainerObject>(info) {
  Creation& creation = take_payload<Creation>(info, "createTrainer");
  listener_ = Napi::Persistent(creation.listener);
  trainer_ = std::make_unique<Trainer>(std::move(creation.options), listener_that_sends());
}

// Messages hold `this`, which lives until the courier is closed: by finish(), or as the environment ends.
TrainListener TrainerObject::listener_that_sends() {
  return {
      .on_phase =
          [this](const std::string& phase) {
            courier_->send([this, phase](Napi::Env env) { tell("onPhase", {text(env, phase)}); });
          },
      .on_loading =
          [this](int64_t done, int64_t total) {
            courier_->send([this, done, total](Napi::Env env) {
              tell("onLoading", {number(env, done), number(env, total)});
            });
          },
      .on_opened =
          [this](const SessionOpened& opened) {
            courier_->send([this, opened](Napi::Env env) { tell("onOpened", {opened_to_js(env, opened)}); });
          },
      .on_step =
          [this](const StepMetrics& metrics) {
            courier_->send([this, metrics](Napi::Env env) { tell("onStep", {step_to_js(env, metrics)}); });
          },
      .on_evaluation =
          [this](const EvaluationMetrics& metrics) {
            courier_->send([this, metrics](Napi::Env env) { tell("onEvaluation", {evaluation_to_js(env, metrics)}); });
          },
      .on_checkpoint =
          [this](const CheckpointWritten& checkpoint) {
            courier_->send(
                [this, checkpoint](Napi::Env env) { tell("onCheckpoint", {written_to_js(env, checkpoint)}); });
          },
      .on_log =
          [this](const std::string& level, const std::string& message) {
            courier_->send([this, level, message](Napi::Env env) {
              tell("onLog", {text(env, level), text(env, message)});
            });
          },
  };
}

void TrainerObject::tell(const char* method, std::initializer_list<napi_value> arguments) {
  const Napi::Object listener = listener_.Value();
  const Napi::Value function = listener.Get(method);
  if (function.IsFunction()) function.As<Napi::Function>().Call(listener, arguments);
}

Trainer& TrainerObject::trainer() const {
  if (disposed_) throw EngineError("wrong_state", "this trainer is disposed");
  return *trainer_;
}

Napi::Value TrainerObject::start(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return promised(env, [&]() -> Napi::Value {
    if (trainer().state() != TrainerState::idle) {
      throw EngineError("wrong_state", std::string("start is not possible while the trainer is ") +
                                           trainer_state_name(trainer_->state()));
    }
    courier_ = Courier::open(env);
    deferred_.emplace(Napi::Promise::Deferred::New(env));
    trainer_->start([this](const TrainResult* result, const EngineError* error) {
      std::variant<TrainResult, EngineError> outcome = TrainResult{};
      if (error != nullptr) {
        outcome.emplace<EngineError>(*error);
      } else {
        outcome = *result;
      }
      courier_->send([this, outcome = std::move(outcome)](Napi::Env e) { finish(e, outcome); });
    });
    Ref();
    Environment::of(env).running.insert(this);
    return deferred_->Promise();
  });
}

void TrainerObject::finish(Napi::Env env, const std::variant<TrainResult, EngineError>& outcome) {
  trainer_->wait();  // its last act was to send this
  Environment::of(env).running.erase(this);
  courier_->close();
  courier_.reset();
  const Napi::Promise::Deferred deferred = *std::exchange(deferred_, std::nullopt);
  if (disposed_) {
    trainer_.reset();
    deferred.Reject(to_js_error(env, {"cancelled", "the trainer was disposed before its run had ended"}).Value());
  } else if (const auto* error = std::get_if<EngineError>(&outcome)) {
    deferred.Reject(to_js_error(env, *error).Value());
  } else {
    deferred.Resolve(result_to_js(env, std::get<TrainResult>(outcome)));
  }
  Unref();
}

void TrainerObject::stop_and_join() {
  courier_->close();
  trainer_->dispose();
}

Napi::Value TrainerObject::pause(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    trainer().pause();
    return info.Env().Undefined();
  });
}

Napi::Value TrainerObject::resume(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    trainer().resume();
    return info.Env().Undefined();
  });
}

Napi::Value TrainerObject::stop(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    bool discard = false;
    if (!info[0].IsUndefined()) {
      OptionReader reader(info[0], "stop");
      discard = reader.flag_or("discard", false);
      reader.finish();
    }
    trainer().stop(discard);
    return info.Env().Undefined();
  });
}

Napi::Value TrainerObject::state(const Napi::CallbackInfo& info) {
  return text(info.Env(), trainer_state_name(disposed_ ? TrainerState::disposed : trainer_->state()));
}

// Joining here would hold the event loop up to a micro-batch long: a run under way is told to stop, and finish() ends it.
Napi::Value TrainerObject::dispose(const Napi::CallbackInfo& info) {
  if (!std::exchange(disposed_, true)) {
    if (deferred_) {
      trainer_->stop(true);
    } else {
      trainer_.reset();
    }
  }
  return info.Env().Undefined();
}

}  // namespace caravan::addon
