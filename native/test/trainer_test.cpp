// The trainer's thread: every method in every state, and what pause, stop and dispose do.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "doctest/doctest.h"
#include "engine/checkpoint/checkpoint.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// A one-shot signal between threads.
class Gate {
 public:
  void open() {
    {
      std::lock_guard lock(mutex_);
      open_ = true;
    }
    changed_.notify_all();
  }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

/// A trainer that can be held inside its first step's report, so that a state stands still while it is looked at.
struct Held {
  TempFolder folder{"trainer"};
  Gate stepped, released, paused, done;
  std::atomic<int> steps{0};
  std::atomic<bool> hold{true};
  std::optional<TrainResult> result;
  std::optional<EngineError> error;
  std::unique_ptr<Trainer> trainer;

  explicit Held(void (*change)(TrainOptions&) = nullptr) {
    TrainOptions options = tiny_run(folder, Method::lora);
    if (change != nullptr) change(options);
    TrainListener listener;
    listener.on_step = [this](const StepMetrics&) {
      ++steps;
      stepped.open();
      if (hold) released.wait();
    };
    listener.on_phase = [this](const std::string& phase) {
      if (phase == "paused") paused.open();
    };
    trainer = std::make_unique<Trainer>(options, listener);
  }
  ~Held() {
    hold = false;
    released.open();
    trainer.reset();
  }
  void start() {
    trainer->start([this](const TrainResult* ended, const EngineError* failed) {
      if (ended != nullptr) result = *ended;
      if (failed != nullptr) error = *failed;
      done.open();
    });
  }
  void release() {
    hold = false;
    released.open();
  }
};

/// Brings a trainer into `state`, where it stays until released.
void bring(Held& held, TrainerState state) {
  switch (state) {
    case TrainerState::idle: return;
    case TrainerState::running:
    case TrainerState::paused:
    case TrainerState::stopping:
      held.start();
      REQUIRE(held.stepped.wait());
      if (state == TrainerState::paused) held.trainer->pause();
      if (state == TrainerState::stopping) held.trainer->stop();
      return;
    case TrainerState::ended:
    case TrainerState::failed:
      held.hold = false;
      held.start();
      REQUIRE(held.done.wait());
      held.trainer->wait();
      return;
    case TrainerState::disposed: held.trainer->dispose(); return;
  }
}

constexpr TrainerState states[] = {TrainerState::idle,     TrainerState::running, TrainerState::paused,
                                   TrainerState::stopping, TrainerState::ended,   TrainerState::failed,
                                   TrainerState::disposed};

struct MethodCase {
  const char* name;
  void (*call)(Trainer&);
  const char* allowed;  // by state, in the order of `states`: y changes, s same, - throws
};

const MethodCase methods[] = {
    {"start", [](Trainer& t) { t.start({}); }, "y------"},   {"pause", [](Trainer& t) { t.pause(); }, "-ys----"},
    {"resume", [](Trainer& t) { t.resume(); }, "-sy----"},   {"stop", [](Trainer& t) { t.stop(); }, "-yysss-"},
    {"dispose", [](Trainer& t) { t.dispose(); }, "yyyyyys"},
};

}  // namespace

TEST_CASE("each method in each state does what the table says") {
  int cases = 0;
  for (const MethodCase& method : methods) {
    for (size_t i = 0; i < std::size(states); ++i) {
      const TrainerState state = states[i];
      Held held(state == TrainerState::failed ? +[](TrainOptions& o) { o.seq_len = 7; } : nullptr);
      bring(held, state);
      INFO(std::string(method.name) << " while " << std::string(trainer_state_name(state)));
      REQUIRE(held.trainer->state() == state);
      std::string code;
      if (std::string(method.name) == "dispose") held.release();  // it joins the thread
      try {
        method.call(*held.trainer);
      } catch (const EngineError& error) {
        code = error.code;
        CHECK(std::string(error.what()).find(trainer_state_name(state)) != std::string::npos);
        CHECK(std::string(error.what()).find(method.name) != std::string::npos);
      }
      if (method.allowed[i] == '-') {
        CHECK(code == "wrong_state");
        CHECK(held.trainer->state() == state);
      } else {
        CHECK(code == "");
        if (method.allowed[i] == 's') CHECK(held.trainer->state() == state);
        if (method.allowed[i] == 'y') CHECK(held.trainer->state() != state);
      }
      ++cases;
    }
  }
  CHECK(cases == 35);
}

TEST_CASE("a paused run stands still until it is resumed, and ends as if it had never paused") {
  Held held;
  held.start();
  REQUIRE(held.stepped.wait());
  held.trainer->pause();
  held.release();
  REQUIRE(held.paused.wait());
  const int steps = held.steps;
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(held.steps == steps);
  held.trainer->resume();
  REQUIRE(held.done.wait());
  REQUIRE(held.result.has_value());
  CHECK(held.result->reason == "finished");
  CHECK(held.steps == 10);

  const TempFolder folder("unpaused");
  const Told plain = train(tiny_run(folder, Method::lora));
  CHECK(read_file(plain.result.checkpoint + "/trainable.safetensors") ==
        read_file(held.result->checkpoint + "/trainable.safetensors"));
}

TEST_CASE("stop writes a checkpoint of the step under way, from a pause too") {
  Held held;
  held.start();
  REQUIRE(held.stepped.wait());
  SUBCASE("running") {}
  SUBCASE("paused") {
    held.trainer->pause();
    held.release();
    REQUIRE(held.paused.wait());
  }
  held.trainer->stop();
  held.release();
  REQUIRE(held.done.wait());
  held.trainer->wait();
  REQUIRE(held.result.has_value());
  CHECK(held.result->reason == "stopped");
  CHECK(held.result->step == held.steps);
  CHECK(held.trainer->state() == TrainerState::ended);
  const auto list = list_checkpoints(held.folder.path("checkpoints"));
  REQUIRE(list.size() == 1);
  CHECK(list[0].step == held.result->step);
  CHECK(list[0].path == held.result->checkpoint);
}

TEST_CASE("stop with discard writes nothing; dispose neither, and it waits for the thread") {
  Held held;
  held.start();
  REQUIRE(held.stepped.wait());
  SUBCASE("discard") {
    held.trainer->stop(true);
    held.release();
    REQUIRE(held.done.wait());
    CHECK(held.result->reason == "stopped");
    CHECK(held.result->checkpoint == "");
  }
  SUBCASE("dispose") {
    held.release();
    held.trainer->dispose();
    CHECK(held.done.wait());
    CHECK(held.trainer->state() == TrainerState::disposed);
  }
  SUBCASE("dispose of a paused run") {
    held.trainer->pause();
    held.release();
    REQUIRE(held.paused.wait());
    held.trainer->dispose();
    CHECK(held.done.wait());
  }
  CHECK(list_checkpoints(held.folder.path("checkpoints")).empty());
}

TEST_CASE("a run that fails says so once, with a code") {
  Held held([](TrainOptions& o) { o.seq_len = 7; });
  held.start();
  REQUIRE(held.done.wait());
  held.trainer->wait();
  REQUIRE(held.error.has_value());
  CHECK(held.error->code == "bad_option");
  CHECK_FALSE(held.result.has_value());
  CHECK(held.trainer->state() == TrainerState::failed);
}

TEST_CASE("options are checked before a thread is started") {
  const TempFolder folder("options");
  TrainOptions options = tiny_run(folder, Method::lora);
  options.lr = -1.0f;
  try {
    Trainer trainer(options, {});
    FAIL("a negative rate was taken");
  } catch (const EngineError& error) {
    CHECK(error.code == "bad_option");
    CHECK(std::string(error.what()).starts_with("lr is -1"));
  }
}

TEST_CASE("what a signal handler asks for ends the run after its step") {
  const TempFolder folder("signal");
  TrainControl control;
  TrainListener listener;
  listener.on_step = [&](const StepMetrics& metrics) {
    if (metrics.step == 3) control.request_stop();
  };
  const TrainResult result = run_training(tiny_run(folder, Method::lora), listener, control);
  CHECK(result.reason == "stopped");
  CHECK(result.step == 3);
  CHECK(result.checkpoint == folder.path("checkpoints/step-000003"));
}
