// A training run: its own thread, its controls, its result.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/train/metrics.h"
#include "engine/train/train_options.h"
#include "kernels/error.h"

namespace caravan {

enum class TrainerState : uint8_t { idle, running, paused, stopping, ended, failed, disposed };
const char* trainer_state_name(TrainerState state);

/// What other threads ask of a run; read between micro-batches.
class TrainControl {
 public:
  void pause() { set(paused_, true); }
  void resume() { set(paused_, false); }
  void stop(bool discard);
  /// What a signal handler may call: stop with a checkpoint, without waking a paused run.
  void request_stop() { stop_.store(true); }
  bool stopping() const { return stop_.load(); }
  bool discard() const { return discard_.load(); }
  bool paused() const { return paused_.load() && !stop_.load(); }
  /// Returns when not paused (any more).
  void wait_while_paused();

 private:
  void set(std::atomic<bool>& flag, bool value);
  std::atomic<bool> paused_{false};
  std::atomic<bool> stop_{false};
  std::atomic<bool> discard_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
};

/// Runs to the end on the calling thread. @throws EngineError diverged, disk_full, out_of_memory, bad_file, bad_option.
TrainResult run_training(const TrainOptions& options, const TrainListener& listener, TrainControl& control);

/// The same on a thread of its own.
///
///   method    idle  running  paused  stopping  ended  failed  disposed
///   start     yes   -        -       -         -      -       -
///   pause     -     yes      same    -         -      -       -
///   resume    -     same     yes     -         -      -       -
///   stop      -     yes      yes     same      same   same    -
///   dispose   yes   yes      yes     yes       yes    yes     same
///
/// "-" throws EngineError wrong_state; "same" does nothing. dispose stops without a checkpoint and joins the thread.
class Trainer {
 public:
  /// Exactly one of result and error is set; called on the trainer's thread as its last act.
  using Done = std::function<void(const TrainResult* result, const EngineError* error)>;

  /// @throws EngineError bad_option
  Trainer(TrainOptions options, TrainListener listener);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  void start(Done done);
  void pause();
  void resume();
  void stop(bool discard = false);
  void dispose();
  TrainerState state() const;
  /// Blocks until the thread has ended; for programs and tests.
  void wait();

 private:
  void require(const char* method, std::initializer_list<TrainerState> allowed) const;
  TrainOptions options_;
  TrainListener listener_;
  TrainControl control_;
  std::thread thread_;
  mutable std::mutex mutex_;
  TrainerState state_ = TrainerState::idle;
};

}  // namespace caravan
