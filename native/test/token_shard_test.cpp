// Token shards, packing and schedules: the data's way into a step.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "doctest/doctest.h"
#include "engine/data/packing.h"
#include "engine/data/token_shard.h"
#include "engine/optim/schedule.h"
#include "engine/train/step_batch.h"
#include "kernels/philox.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;

namespace {

/// A shard that is right; each test spoils one thing.
struct Spoiled {
  std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6, 7};
  std::vector<int64_t> offsets = {0, 3, 7};
  std::vector<uint8_t> targets = {0, 1, 1, 0, 0, 1, 1};
  std::vector<int32_t> source = {0, 1};
  std::vector<std::string> sources = {"a", "b"};

  TokenShard open(const TempFolder& folder, int64_t vocab_size = 10) const {
    const std::string path = folder.path("shard.safetensors");
    write_token_shard(path, {ids, offsets, targets, source, sources, {{"split", "train"}}});
    return TokenShard::open(path, vocab_size);
  }
};

void check_refused(const TempFolder& folder, const Spoiled& shard, const char* word) {
  try {
    shard.open(folder);
    FAIL("taken: " << std::string(word));
  } catch (const EngineError& error) {
    INFO(error.what());
    CHECK(error.code == "bad_file");
    CHECK(std::string(error.what()).find("shard.safetensors") != std::string::npos);
    CHECK(std::string(error.what()).find(word) != std::string::npos);
  }
}

int64_t filled(const std::vector<int32_t>& bin, const std::vector<int64_t>& lengths) {
  return std::accumulate(bin.begin(), bin.end(), int64_t{0},
                         [&](int64_t sum, int32_t i) { return sum + lengths[static_cast<size_t>(i)]; });
}

}  // namespace

TEST_CASE("a shard reads as it was written") {
  const TempFolder folder("shard");
  const TokenShard shard = Spoiled().open(folder);
  CHECK(shard.rows() == 2);
  CHECK(shard.tokens() == 7);
  CHECK(shard.row_length(1) == 4);
  const ShardRow row = shard.row(1);
  CHECK(std::vector<int32_t>(row.ids.begin(), row.ids.end()) == std::vector<int32_t>{4, 5, 6, 7});
  CHECK(row.source == 1);
  CHECK(row.target_count() == 2);
  CHECK(shard.sources() == std::vector<std::string>{"a", "b"});
  CHECK(shard.metadata().at("split") == "train");
  CHECK(shard.metadata().at("format") == token_shard_format);
}

TEST_CASE("a target mark on a row's first token counts for nothing") {
  const TempFolder folder("first");
  Spoiled marked;
  marked.targets[0] = 1;
  CHECK(marked.open(folder).row(0).target_count() == 2);
  marked.targets = {1, 0, 0, 0, 0, 1, 1};
  check_refused(folder, marked, "row 0 has no token to learn");
}

TEST_CASE("hostile shards are refused by file and row") {
  const TempFolder folder("hostile");
  const auto spoil = [&](const char* word, auto change) {
    Spoiled shard;
    change(shard);
    check_refused(folder, shard, word);
  };
  spoil("offsets", [](Spoiled& s) { s.offsets = {1, 3, 7}; });
  spoil("offsets", [](Spoiled& s) { s.offsets = {0, 3, 6}; });
  spoil("offsets", [](Spoiled& s) { s.offsets = {0, 3, int64_t{1} << 40}; });
  spoil("row 1", [](Spoiled& s) { s.offsets = {0, int64_t{1} << 40, 7}; });  // falls back again
  spoil("row 0", [](Spoiled& s) { s.offsets = {0, -5, 7}; });
  spoil("row 0", [](Spoiled& s) { s.offsets = {0, 1, 7}; });
  spoil("row 1 holds token 10", [](Spoiled& s) { s.ids[5] = 10; });
  spoil("row 0 holds token -1", [](Spoiled& s) { s.ids[0] = -1; });
  spoil("target mark of 2", [](Spoiled& s) { s.targets[4] = 2; });
  spoil("names source 2", [](Spoiled& s) { s.source[1] = 2; });
  spoil("names source -1", [](Spoiled& s) { s.source[0] = -1; });
  spoil("sources than rows", [](Spoiled& s) { s.source = {0}; });
  spoil("targets than ids", [](Spoiled& s) { s.targets.pop_back(); });
  spoil("no rows", [](Spoiled& s) {
    s.offsets = {0};
    s.ids.clear();
    s.targets.clear();
    s.source.clear();
  });
  Spoiled right;
  CHECK_NOTHROW(right.open(folder, 8));
  CHECK_THROWS_AS(right.open(folder, 7), EngineError);
  CHECK_NOTHROW(right.open(folder, 0));  // not checked
}

TEST_CASE("a file that is cut short or bent anywhere is refused, never read past its end") {
  const TempFolder folder("bent");
  Spoiled().open(folder);
  const std::string path = folder.path("shard.safetensors"), whole = read_file(path);
  int refused = 0;
  for (size_t size = 0; size < whole.size(); ++size) {
    write_file(path, whole.substr(0, size));
    try {
      TokenShard::open(path, 10);
    } catch (const EngineError& error) {
      CHECK(error.code == "bad_file");
      ++refused;
    }
  }
  CHECK(refused == static_cast<int>(whole.size()));
  for (size_t at = 0; at < whole.size(); ++at) {  // a bit flipped in the ids may give another shard that is right
    std::string bent = whole;
    bent[at] = static_cast<char>(bent[at] ^ (1 << at % 8));
    write_file(path, bent);
    try {
      const TokenShard shard = TokenShard::open(path, 10);
      for (int64_t row = 0; row < shard.rows(); ++row) CHECK(shard.row(row).target_count() > 0);
    } catch (const EngineError& error) {
      CHECK(error.code == "bad_file");
    }
  }
  write_file(path, R"({"not": "safetensors"})");
  CHECK_THROWS_AS(TokenShard::open(path), EngineError);
}

TEST_CASE("best fit: by falling length, each into the fullest bin that has room") {
  const std::vector<int64_t> lengths = {4, 7, 3, 6, 3, 2};
  // 7, 6, 4, 3, 3, 2 into bins of 10: {7}, {6}, {6, 4} is full, {7, 3} is full, {3}, {3, 2}.
  const std::vector<std::vector<int32_t>> expected = {{1, 2}, {3, 0}, {4, 5}};
  CHECK(pack_best_fit(lengths, 10) == expected);
  CHECK(pack_best_fit(std::vector<int64_t>{}, 10).empty());
  CHECK(pack_best_fit(std::vector<int64_t>{10, 10}, 10).size() == 2);
  try {
    pack_best_fit(std::vector<int64_t>{3, 11}, 10);
    FAIL("a conversation longer than a bin was taken");
  } catch (const EngineError& error) {
    CHECK(error.code == "bad_option");
    CHECK(std::string(error.what()).find("11 tokens") != std::string::npos);
  }
}

TEST_CASE("packing keeps every conversation once, overfills no bin, and wastes little") {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::vector<int64_t> lengths;
    for (uint32_t i = 0; i < 300; ++i) lengths.push_back(1 + philox(seed, 0, i, 0, 0, 0).word[0] % 100);
    const auto bins = pack_best_fit(lengths, 128);
    CHECK(bins == pack_best_fit(lengths, 128));
    std::vector<int> seen(lengths.size(), 0);
    for (const auto& bin : bins) {
      CHECK(filled(bin, lengths) <= 128);
      for (const int32_t i : bin) ++seen[static_cast<size_t>(i)];
    }
    CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
    const double tokens = static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
    CHECK(static_cast<double>(bins.size()) < 1.03 * std::ceil(tokens / 128.0) + 1.0);
  }
}

TEST_CASE("a step's conversations are laid into bins of seqLen and micro-batches of whole bins") {
  const TempFolder folder("laid");
  TrainOptions options = tiny_run(folder, Method::lora);
  const TokenShard shard = open_shard(options.train_shard, tiny_config(), options);
  StepPlan plan(shard, options);
  const StepBatch batch = make_step_batch(shard, plan.rows(1), options);
  int64_t tokens = 0;
  for (const MicroBatch& micro : batch.micro_batches) {
    CHECK(micro.size() <= options.micro_batch_size * options.seq_len);
    const Tokens view = micro.tokens();
    tokens += view.n;
    // Every sequence is a conversation of the batch, whole and at its own positions.
    for (int64_t s = 0; s < view.sequences; ++s) {
      const int32_t first = view.cu_seqlens[s], last = view.cu_seqlens[s + 1];
      const ShardRow row = shard.row(batch.rows[static_cast<size_t>(view.conversation[first])]);
      REQUIRE(static_cast<int64_t>(row.ids.size()) == last - first);
      for (int32_t i = first; i < last; ++i) {
        CHECK(view.ids[i] == row.ids[static_cast<size_t>(i - first)]);
        CHECK(view.position[i] == i - first);
      }
    }
  }
  CHECK(tokens == batch.tokens);
  CHECK(batch.padding_tokens == 0);
}

TEST_CASE("the last step of an epoch takes what is left, and the next begins another order") {
  const TempFolder folder("epochs");
  TrainOptions options = tiny_run(folder, Method::lora);
  options.batch_size = 12;  // 40 rows: 12, 12, 12, 4
  const TokenShard shard = open_shard(options.train_shard, tiny_config(), options);
  StepPlan plan(shard, options);
  CHECK(plan.steps_per_epoch() == 4);
  CHECK(plan.total_steps() == 8);
  CHECK(plan.rows(4).size() == 4);
  CHECK(plan.rows(1) != plan.rows(5));
  const std::vector<int32_t> fourth = plan.rows(4);
  plan.rows(8);
  CHECK(plan.rows(4) == fourth);  // in whatever order it is asked
  CHECK(plan.epochs_after(3) == doctest::Approx(0.9));
  CHECK(plan.epochs_after(4) == 1.0);
  CHECK(plan.epochs_after(8) == 2.0);
}

TEST_CASE("warm-up counts steps from 1; constant, linear and cosine go where they should") {
  CHECK(warmup_steps(0.03, 1000) == 30);
  CHECK(warmup_steps(0.0, 1000) == 1);
  CHECK(warmup_steps(0.03, 3) == 1);
  CHECK(warmup_steps(1.0, 10) == 10);
  for (const char* schedule : {"constant", "linear", "cosine"}) {
    CHECK(learning_rate(schedule, 1.0f, 1, 4, 20) == doctest::Approx(0.25));
    CHECK(learning_rate(schedule, 1.0f, 3, 4, 20) == doctest::Approx(0.75));
    CHECK(learning_rate(schedule, 1.0f, 4, 4, 20) == 1.0f);
  }
  CHECK(learning_rate("constant", 2e-4f, 20, 4, 20) == 2e-4f);
  // 16 steps from the top at 4 to 20, and 0 would be at 21.
  CHECK(learning_rate("linear", 1.0f, 20, 4, 20) == doctest::Approx(1.0 / 17.0));
  CHECK(learning_rate("cosine", 1.0f, 20, 4, 20) == doctest::Approx(0.5 * (1.0 + std::cos(M_PI * 16.0 / 17.0))));
  CHECK(learning_rate("linear", 1.0f, 21, 4, 20) == 0.0f);
  CHECK(learning_rate("cosine", 1.0f, 21, 4, 20) == doctest::Approx(0.0));
  CHECK_THROWS_AS(learning_rate("step", 1.0f, 1, 4, 20), EngineError);
}
