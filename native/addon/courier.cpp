#include "addon/courier.h"

#include <exception>
#include <utility>

#include "addon/js_error.h"

namespace caravan::addon {

std::shared_ptr<Courier> Courier::open(Napi::Env env, size_t capacity) {
  std::shared_ptr<Courier> courier(new Courier(capacity));
  // Node-API may call back until it finalizes the function, so the function holds the courier until then.
  auto* held = new std::shared_ptr<Courier>(courier);
  const napi_status status = napi_create_threadsafe_function(
      env, nullptr, nullptr, Napi::String::New(env, "caravan"), 1, 1, held,
      [](napi_env, void* data, void*) {
        auto* owner = static_cast<std::shared_ptr<Courier>*>(data);
        {
          // The environment ended: its functions are gone, whether close() was called or not.
          const std::lock_guard lock((*owner)->mutex_);
          (*owner)->bell_ = nullptr;
        }
        (*owner)->room_.notify_all();
        delete owner;
      },
      held, on_bell, &courier->bell_);
  if (status != napi_ok) {
    delete held;
    throw Napi::Error::New(env, "the event loop takes no messages");
  }
  return courier;
}

void Courier::send(Message message) {
  std::unique_lock lock(mutex_);
  room_.wait(lock, [this] { return bell_ == nullptr || waiting_.size() < capacity_; });
  if (bell_ == nullptr) return;
  waiting_.push_back(std::move(message));
  // A full queue means that the bell has been rung and not yet heard: then it is heard for this message too.
  if (napi_call_threadsafe_function(bell_, nullptr, napi_tsfn_nonblocking) == napi_closing) bell_ = nullptr;
}

void Courier::close() {
  {
    const std::lock_guard lock(mutex_);
    waiting_.clear();
    if (bell_ != nullptr) napi_release_threadsafe_function(std::exchange(bell_, nullptr), napi_tsfn_abort);
  }
  room_.notify_all();
}

void Courier::on_bell(napi_env env, napi_value, void* context, void*) {
  if (env == nullptr) return;  // the environment is ending
  const std::shared_ptr<Courier> self = *static_cast<std::shared_ptr<Courier>*>(context);
  self->deliver(env);
}

void Courier::deliver(Napi::Env env) {
  // What is sent from now on has rung the bell again: so a fast sender cannot keep the event loop to itself.
  size_t count = 0;
  {
    const std::lock_guard lock(mutex_);
    count = waiting_.size();
  }
  for (; count > 0; --count) {
    Message message;
    {
      const std::lock_guard lock(mutex_);
      if (bell_ == nullptr || waiting_.empty()) return;
      message = std::move(waiting_.front());
      waiting_.pop_front();
    }
    room_.notify_one();
    const Napi::HandleScope scope(env);
    try {
      message(env);
    } catch (const Napi::Error& error) {
      napi_fatal_exception(env, error.Value());
    } catch (...) {
      napi_fatal_exception(env, to_js_error(env, as_engine_error(std::current_exception())).Value());
    }
  }
}

}  // namespace caravan::addon
