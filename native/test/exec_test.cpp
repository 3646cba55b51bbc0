// The thread pool: every index once, exceptions to the caller, several callers, late and busy workers.
#include "kernels/exec.h"

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "doctest/doctest.h"
#include "kernels/cpu/thread_pool.h"

using namespace caravan;

TEST_CASE("parallel_for covers every index once, in ranges no shorter than the grain") {
  for (const int threads : {1, 2, 3, 8}) {
    const auto pool = make_thread_pool(threads);
    Exec exec;
    exec.pool = pool.get();
    CHECK(thread_count(exec) == threads);
    for (const int64_t count : {0, 1, 2, 7, 100, 10007}) {
      for (const int64_t grain : {0, 1, 64, 100000}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
        std::atomic<int> short_ranges{0};
        parallel_for(exec, count, grain, [&](int64_t first, int64_t last) {
          if (last - first < grain && last != count) ++short_ranges;
          for (int64_t i = first; i < last; ++i) ++seen[static_cast<size_t>(i)];
        });
        CHECK(short_ranges == 0);
        for (const auto& times : seen) REQUIRE(times == 1);
      }
    }
  }
  CHECK(thread_count(Exec{}) == 1);
}

TEST_CASE("a body's exception reaches the caller and the pool goes on working") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for (int round = 0; round < 50; ++round) {
    try {
      parallel_for(exec, 1000, 1, [&](int64_t first, int64_t last) {
        if (first <= 500 && 500 < last) throw EngineError("bad_row", "row 500");
      });
      FAIL("no exception");
    } catch (const EngineError& error) {
      REQUIRE(error.code == "bad_row");
    }
    std::atomic<int64_t> sum{0};
    parallel_for(exec, 1000, 1, [&](int64_t first, int64_t last) { sum += last - first; });
    REQUIRE(sum == 1000);
  }
}

TEST_CASE("many short jobs, with pauses that let the workers sleep, lose nothing") {
  const auto pool = make_thread_pool(4);
  std::atomic<int64_t> done{0};
  for (int job = 0; job < 20000; ++job) {
    if (job % 4000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    pool->run(1 + job % 7, [&](int64_t) { done.fetch_add(1, std::memory_order_relaxed); });
  }
  int64_t expected = 0;
  for (int job = 0; job < 20000; ++job) expected += 1 + job % 7;
  CHECK(done == expected);
}

TEST_CASE("callers on several threads take turns, and a job inside a task runs on its own thread") {
  const auto pool = make_thread_pool(3);
  std::atomic<int64_t> done{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int job = 0; job < 200; ++job) {
        pool->run(5, [&](int64_t) { pool->run(2, [&](int64_t) { done.fetch_add(1); }); });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(done == 4 * 200 * 5 * 2);
}
