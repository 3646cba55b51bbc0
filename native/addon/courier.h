// Carries what a working thread has to say to the JavaScript thread: in order, nothing lost, and no more waiting than
// `capacity` messages; a thread that is faster waits.
//
// A bounded thread-safe function alone will not do. Its blocking call cannot be woken, so whoever joins the working
// thread from the JavaScript thread, as disposing and the end of the environment do, would wait for ever; its
// non-blocking call drops what does not fit, and a step's metrics are the record of a run. So messages wait here, and the
// thread-safe function (of one place) is but the bell.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include <napi.h>

namespace caravan::addon {

class Courier : public std::enable_shared_from_this<Courier> {
 public:
  /// Runs on the JavaScript thread within a handle scope. What it throws becomes an uncaught exception of JavaScript,
  /// and the messages after it still run. It must not own a reference to a JavaScript value: a message that is refused
  /// is destroyed where it was sent.
  using Message = std::function<void(Napi::Env)>;

  /// On the JavaScript thread. The event loop stays alive until the courier is closed.
  static std::shared_ptr<Courier> open(Napi::Env env, size_t capacity = 1024);

  /// From any thread. Waits while `capacity` messages do; does nothing once closed.
  void send(Message message);
  /// From the JavaScript thread: nothing more is delivered, and a sender that waits returns.
  void close();

  ~Courier() = default;
  Courier(const Courier&) = delete;
  Courier& operator=(const Courier&) = delete;

 private:
  explicit Courier(size_t capacity) : capacity_(capacity) {}
  static void on_bell(napi_env env, napi_value, void* context, void*);
  void deliver(Napi::Env env);

  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable room_;
  std::deque<Message> waiting_;
  napi_threadsafe_function bell_ = nullptr;  // null once closed
};

}  // namespace caravan::addon
