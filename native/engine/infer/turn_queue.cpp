#include "engine/infer/turn_queue.h"

#include <algorithm>
#include <chrono>

namespace caravan {

namespace {

// How long a step waits for conversations that have not handed in their next turn. A turn's caller draws a token and tells
// it, which takes some ten microseconds; one that takes longer (a listener that blocks) is not waited for.
constexpr std::chrono::microseconds patience{500};

}  // namespace

void TurnQueue::change_seats(int by) {
  const std::lock_guard lock(mutex_);
  seats_ += by;
  if (seats_ == 0) {
    step_.reset();
    lease_.reset();
    step_bytes_ = 0;
  }
  changed_.notify_all();
}

void TurnQueue::take(const Turn& turn) {
  Waiting own{turn, false, nullptr};
  std::unique_lock lock(mutex_);
  waiting_.push_back(&own);
  changed_.notify_all();
  while (!own.done) {
    if (reading_) {
      changed_.wait(lock);
    } else {
      read_once(lock);
    }
  }
  if (own.failed) std::rethrow_exception(own.failed);
}

/// Gathers turns and reads them; the oldest go first.
void TurnQueue::read_once(std::unique_lock<std::mutex>& lock) {
  reading_ = true;
  std::vector<Waiting*> together;
  std::exception_ptr failed;
  try {
    if (!step_) {
      lease_ = std::make_unique<ExecPool::Lease>(execs_);
      step_ = std::make_unique<SharedStep>(lease_->exec(), model_, activation_);
    }
    const auto most = static_cast<size_t>(step_->most_turns());
    changed_.wait_for(lock, patience,
                      [&] { return waiting_.size() >= most || waiting_.size() >= static_cast<size_t>(seats_); });
    const auto end = waiting_.begin() + static_cast<ptrdiff_t>(std::min(most, waiting_.size()));
    together.assign(waiting_.begin(), end);
    waiting_.erase(waiting_.begin(), end);
    std::vector<Turn> turns;
    for (const Waiting* waiting : together) turns.push_back(waiting->turn);
    most_together_ = std::max(most_together_, static_cast<int64_t>(turns.size()));
    lock.unlock();
    try {
      step_->run(turns);
    } catch (...) {
      failed = std::current_exception();
    }
    lock.lock();
    step_bytes_ = step_->memory_bytes();
  } catch (...) {
    // No step could be made: everybody who waits is told so.
    failed = std::current_exception();
    together.swap(waiting_);
  }
  for (Waiting* waiting : together) {
    waiting->done = true;
    waiting->failed = failed;
  }
  reading_ = false;
  changed_.notify_all();
}

size_t TurnQueue::memory_bytes() {
  const std::lock_guard lock(mutex_);
  return step_bytes_;
}

int64_t TurnQueue::most_together() {
  const std::lock_guard lock(mutex_);
  return most_together_;
}

}  // namespace caravan
