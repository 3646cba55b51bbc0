// Brings the conversations of several threads together: each hands in its turn, and one thread reads for all.
#pragma once

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/infer/exec_pool.h"
#include "engine/infer/shared_step.h"

namespace caravan {

class TurnQueue {
 public:
  TurnQueue(ExecPool& execs, std::shared_ptr<const Model> model, DType activation)
      : execs_(execs), model_(std::move(model)), activation_(activation) {}

  /// A conversation that takes turns from now on: the others' steps wait a moment for it.
  class Seat {
   public:
    explicit Seat(TurnQueue& queue) : queue_(queue) { queue_.change_seats(1); }
    ~Seat() { queue_.change_seats(-1); }
    Seat(const Seat&) = delete;
    Seat& operator=(const Seat&) = delete;
    /// Returns when the turn is read, which may be beside others'. @throws what went wrong in the step
    void take(const Turn& turn) { queue_.take(turn); }

   private:
    TurnQueue& queue_;
  };

  size_t memory_bytes();
  /// The most turns that one step has held.
  int64_t most_together();

 private:
  struct Waiting {
    Turn turn;
    bool done = false;
    std::exception_ptr failed;
  };

  void change_seats(int by);
  void take(const Turn& turn);
  void read_once(std::unique_lock<std::mutex>& lock);

  ExecPool& execs_;
  std::shared_ptr<const Model> model_;
  DType activation_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int seats_ = 0;
  bool reading_ = false;  // one thread gathers turns or reads them
  std::vector<Waiting*> waiting_;
  int64_t most_together_ = 0;
  size_t step_bytes_ = 0;
  // There while anybody sits; the step goes before the context that it runs on.
  std::unique_ptr<ExecPool::Lease> lease_;
  std::unique_ptr<SharedStep> step_;
};

}  // namespace caravan
