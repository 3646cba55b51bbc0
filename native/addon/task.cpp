#include "addon/task.h"

#include <exception>
#include <utility>

#include "addon/js_error.h"

namespace caravan::addon {

Task::Task(Napi::Env env, Parts parts)
    : deferred_(Napi::Promise::Deferred::New(env)), parts_(std::move(parts)), courier_(Courier::open(env)) {}

Napi::Promise Task::start(Napi::Env env, Parts parts) {
  auto owned = std::unique_ptr<Task>(new Task(env, std::move(parts)));
  Task* const task = owned.get();
  task->thread_ = std::thread([task] {
    Settle settle;
    try {
      settle = task->parts_.work(*task->courier_);
    } catch (...) {
      settle = [error = as_engine_error(std::current_exception())](Napi::Env) -> Napi::Value { throw error; };
    }
    task->courier_->send([task, settle = std::move(settle)](Napi::Env env) { task->finish(env, settle); });
  });
  // From here on the task belongs to its own end, or to the environment's.
  Environment::of(env).running.insert(owned.release());
  return task->deferred_.Promise();
}

void Task::finish(Napi::Env env, const Settle& settle) {
  const std::unique_ptr<Task> self(this);
  thread_.join();  // its last act was to send this
  Environment::of(env).running.erase(this);
  courier_->close();
  if (parts_.ended) parts_.ended();
  try {
    deferred_.Resolve(guarded(env, [&] { return settle(env); }));
  } catch (const Napi::Error& error) {
    deferred_.Reject(error.Value());
  }
}

void Task::stop_and_join() {
  if (parts_.cancel) parts_.cancel();
  courier_->close();
  if (thread_.joinable()) thread_.join();
  delete this;
}

}  // namespace caravan::addon
