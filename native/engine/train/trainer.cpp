#include "engine/train/trainer.h"

#include <algorithm>
#include <initializer_list>
#include <new>
#include <string>

namespace caravan {

const char* trainer_state_name(TrainerState state) {
  switch (state) {
    case TrainerState::idle: return "idle";
    case TrainerState::running: return "running";
    case TrainerState::paused: return "paused";
    case TrainerState::stopping: return "stopping";
    case TrainerState::ended: return "ended";
    case TrainerState::failed: return "failed";
    case TrainerState::disposed: return "disposed";
  }
  return "idle";
}

void TrainControl::set(std::atomic<bool>& flag, bool value) {
  {
    std::lock_guard lock(mutex_);
    flag.store(value);
  }
  changed_.notify_all();
}

void TrainControl::stop(bool discard) {
  if (discard) set(discard_, true);
  set(stop_, true);
}

void TrainControl::wait_while_paused() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !paused(); });
}

Trainer::Trainer(TrainOptions options, TrainListener listener)
    : options_(std::move(options)), listener_(std::move(listener)) {
  check_train_options(options_);
}

Trainer::~Trainer() { dispose(); }

/// Called with the lock held.
void Trainer::require(const char* method, std::initializer_list<TrainerState> allowed) const {
  if (std::find(allowed.begin(), allowed.end(), state_) != allowed.end()) return;
  throw EngineError("wrong_state",
                    std::string(method) + " is not possible while the trainer is " + trainer_state_name(state_));
}

void Trainer::start(Done done) {
  std::lock_guard lock(mutex_);
  require("start", {TrainerState::idle});
  state_ = TrainerState::running;
  thread_ = std::thread([this, done = std::move(done)] {
    const auto finish = [this](TrainerState state) {
      std::lock_guard guard(mutex_);
      if (state_ != TrainerState::disposed) state_ = state;
    };
    const auto fail = [&](const EngineError& error) {
      finish(TrainerState::failed);
      if (done) done(nullptr, &error);
    };
    try {
      const TrainResult result = run_training(options_, listener_, control_);
      finish(TrainerState::ended);
      if (done) done(&result, nullptr);
    } catch (const EngineError& error) {
      fail(error);
    } catch (const std::bad_alloc&) {
      fail(EngineError("out_of_memory",
                       "the run needs more memory than there is; lower microBatchSize or seqLen, or "
                       "turn recompute on"));
    } catch (const std::exception& error) {
      fail(EngineError("internal", error.what()));
    }
  });
}

void Trainer::pause() {
  std::lock_guard lock(mutex_);
  require("pause", {TrainerState::running, TrainerState::paused});
  state_ = TrainerState::paused;
  control_.pause();
}

void Trainer::resume() {
  std::lock_guard lock(mutex_);
  require("resume", {TrainerState::running, TrainerState::paused});
  state_ = TrainerState::running;
  control_.resume();
}

void Trainer::stop(bool discard) {
  std::lock_guard lock(mutex_);
  require("stop", {TrainerState::running, TrainerState::paused, TrainerState::stopping, TrainerState::ended,
                   TrainerState::failed});
  if (state_ == TrainerState::ended || state_ == TrainerState::failed) return;
  state_ = TrainerState::stopping;
  control_.stop(discard);
}

void Trainer::dispose() {
  {
    std::lock_guard lock(mutex_);
    if (state_ == TrainerState::disposed && !thread_.joinable()) return;
    state_ = TrainerState::disposed;
  }
  control_.stop(true);
  if (thread_.joinable()) thread_.join();
}

TrainerState Trainer::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

void Trainer::wait() {
  if (thread_.joinable()) thread_.join();
}

}  // namespace caravan
