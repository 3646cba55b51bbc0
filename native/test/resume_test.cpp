// Resuming: the end of a run does not know that it was ever stopped.
#include <array>

#include "doctest/doctest.h"
#include "engine/checkpoint/checkpoint.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;
namespace fs = std::filesystem;

namespace {

const std::array<const char*, 3> files = {"trainable.safetensors", "optimizer.safetensors", "manifest.json"};

void check_same_checkpoint(const std::string& a, const std::string& b) {
  for (const char* file : files) {
    const std::string first = read_file(a + "/" + file);
    INFO(b << "/" << std::string(file));
    CHECK(!first.empty());
    CHECK(first == read_file(b + "/" + file));
  }
}

/// The same run with checkpoints in a folder of its own.
TrainOptions into(TrainOptions options, const TempFolder& folder, const std::string& name) {
  options.checkpoint_dir = folder.path(name);
  return options;
}

/// Stops after each step of `stops` in turn, and resumes; returns the last part of the run.
Told train_with_stops(TrainOptions options, std::initializer_list<int64_t> stops) {
  Told told;
  for (const int64_t stop : stops) {
    told = train(options, stop);
    REQUIRE(told.error == "");
    REQUIRE(told.result.reason == "stopped");
    CHECK(told.result.step == stop);
    options.resume_from = told.result.checkpoint;
  }
  told = train(options);
  REQUIRE(told.error == "");
  CHECK(told.result.reason == "finished");
  return told;
}

/// The listeners' numbers that do not speak of time.
void check_same_metrics(const StepMetrics& a, const StepMetrics& b) {
  CHECK(a.step == b.step);
  CHECK(a.loss == b.loss);
  CHECK(a.grad_norm == b.grad_norm);
  CHECK(a.lr == b.lr);
  CHECK(a.epoch == b.epoch);
  CHECK(a.balance_loss == b.balance_loss);
  CHECK(a.rows == b.rows);
  CHECK(a.row_losses == b.row_losses);
  CHECK(a.expert_shares == b.expert_shares);
}

}  // namespace

TEST_CASE("a resumed run ends with the bytes of an uninterrupted one: methods, optimizers, dtypes, threads") {
  int runs = 0;
  for (const Method method : {Method::lora, Method::pesc, Method::full, Method::upcycle}) {
    for (const char* optimizer : {"adamw", "adamw8bit"}) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const TempFolder folder("resume");
        TrainOptions options = tiny_run(folder, method);
        options.optimizer = optimizer;
        options.train_dtype = dtype;
        options.method.adapter_dim = 32;  // large enough for 8-bit states
        options.schedule = "cosine";
        options.eval_steps = 3;
        options.save_steps = 4;
        INFO(std::string(method_name(method))
             << " " << std::string(optimizer) << " " << std::string(dtype == DType::f32 ? "f32" : "bf16"));
        const Told whole = train(into(options, folder, "whole"));
        REQUIRE(whole.error == "");
        REQUIRE(whole.steps.size() == 10);

        TrainOptions stopped = into(options, folder, "stopped");
        stopped.threads = 3;  // the bits do not depend on them
        const Told rest = train_with_stops(stopped, {1, 5, 8});
        check_same_checkpoint(whole.result.checkpoint, rest.result.checkpoint);
        check_same_metrics(whole.steps.back(), rest.steps.back());
        CHECK(whole.evaluations.back().loss == rest.evaluations.back().loss);
        CHECK(rest.steps.front().step == 9);
        CHECK(rest.result.step_zero_difference == whole.result.step_zero_difference);
        ++runs;
      }
    }
  }
  CHECK(runs == 16);
}

TEST_CASE("a run over an NF4 base resumes to the same bytes, the difference of quantisation included") {
  const TempFolder folder("resume-nf4");
  TrainOptions options = tiny_run(folder, Method::pesc);
  options.base_dtype = BaseDType::nf4;
  options.compute_dtype = DType::bf16;
  const Told whole = train(into(options, folder, "whole"));
  REQUIRE(whole.error == "");
  CHECK(whole.result.quantization_difference > 0.0);
  const Told rest = train_with_stops(into(options, folder, "stopped"), {6});
  check_same_checkpoint(whole.result.checkpoint, rest.result.checkpoint);
  CHECK(rest.result.quantization_difference == whole.result.quantization_difference);
  // Told before the first step, and by a resumed run as its first start measured them.
  for (const Told* told : {&whole, &rest}) {
    REQUIRE(told->opened);
    CHECK(told->told_before_opened == 0);
    CHECK(told->opened->quantization_difference == whole.result.quantization_difference);
    CHECK(told->opened->step_zero_difference == whole.result.step_zero_difference);
  }
}

TEST_CASE("whatever a killed run leaves on disk, its resumption ends with the same bytes") {
  const TempFolder folder("killed");
  TrainOptions options = tiny_run(folder, Method::pesc);
  options.save_steps = 2;
  options.eval_steps = 2;
  const Told whole = train(into(options, folder, "whole"));
  REQUIRE(whole.error == "");

  // The process died after step 7: steps 4 and 6 are whole, nothing was saved on the way out.
  const TrainOptions killed = into(options, folder, "killed");
  REQUIRE(train(killed, 7, true).error == "");
  const std::string newest = folder.path("killed/step-000006");
  REQUIRE(fs::exists(newest));
  const std::string saved = folder.path("saved");
  fs::copy(folder.path("killed"), saved, fs::copy_options::recursive);
  const auto restore = [&] {
    fs::remove_all(folder.path("killed"));
    fs::copy(saved, folder.path("killed"), fs::copy_options::recursive);
  };
  const auto resume_and_compare = [&](int64_t first_step, size_t warnings) {
    TrainOptions resumed = killed;
    resumed.resume_from = newest;
    const Told rest = train(resumed);
    REQUIRE(rest.error == "");
    CHECK(rest.steps.front().step == first_step);
    CHECK(rest.warnings.size() == warnings);
    check_same_checkpoint(whole.result.checkpoint, rest.result.checkpoint);
    for (const auto& entry : fs::directory_iterator(folder.path("killed"))) {
      CHECK(entry.path().filename().string().starts_with("step-"));  // nothing hidden is left
    }
    for (const CheckpointInfo& one : list_checkpoints(folder.path("killed"))) CHECK(one.problem == "");
    restore();
  };

  SUBCASE("nothing else") { resume_and_compare(7, 0); }
  SUBCASE("a checkpoint half written") {
    fs::create_directories(folder.path("killed/.step-000008.partial"));
    write_file(folder.path("killed/.step-000008.partial/trainable.safetensors"), "half");
    resume_and_compare(7, 0);
  }
  SUBCASE("a checkpoint renamed, older ones not yet deleted") {
    fs::copy(folder.path("whole/step-000010"), folder.path("killed/step-000010"), fs::copy_options::recursive);
    resume_and_compare(7, 0);
  }
  SUBCASE("a deletion half done") {
    fs::create_directories(folder.path("killed/.step-000002.deleted"));
    write_file(folder.path("killed/.step-000002.deleted/manifest.json"), "{}");
    resume_and_compare(7, 0);
  }
  SUBCASE("the newest damaged in any of its files, cut short or with one bit flipped") {
    int damages = 0;
    for (const char* file : files) {
      const std::string path = newest + "/" + file, bytes = read_file(path);
      for (const size_t at : {size_t{0}, bytes.size() / 2, bytes.size() - 1}) {
        std::string damaged = bytes;
        damaged[at] = static_cast<char>(damaged[at] ^ 4);
        write_file(path, damaged);
        resume_and_compare(5, 1);
        write_file(path, bytes.substr(0, at));
        resume_and_compare(5, 1);
        ++damages;
      }
      fs::remove(path);
      resume_and_compare(5, 1);
    }
    CHECK(damages == 9);
  }
}

TEST_CASE("the folder of checkpoints stands for its newest; without one that verifies a run is refused") {
  const TempFolder folder("newest");
  TrainOptions options = tiny_run(folder, Method::lora);
  options.save_steps = 3;
  REQUIRE(train(options, 7, true).error == "");
  options.resume_from = options.checkpoint_dir;
  CHECK(train(options, 7, true).steps.front().step == 7);
  for (const CheckpointInfo& one : list_checkpoints(options.checkpoint_dir)) {
    write_file(one.path + "/manifest.json", "{}");
  }
  const Told refused = train(options);
  CHECK(refused.error_code == "bad_file");
  CHECK(refused.warnings.size() == 2);
  CHECK(refused.steps.empty());
}

TEST_CASE("other options, another mix or another model are refused, naming the field and both values") {
  const TempFolder folder("refused");
  TrainOptions options = tiny_run(folder, Method::pesc);
  const Told first = train(options, 2);
  REQUIRE(first.error == "");
  options.resume_from = first.result.checkpoint;
  const auto refused = [&](const char* code, std::initializer_list<const char*> words, auto change) {
    TrainOptions changed = options;
    change(changed);
    const Told told = train(changed);
    CHECK(told.error_code == code);
    for (const char* word : words) {
      INFO(told.error);
      CHECK(told.error.find(word) != std::string::npos);
    }
    CHECK(told.steps.empty());
  };
  refused("bad_option", {"batchSize is 4", "8"}, [](TrainOptions& o) { o.batch_size = 4; });
  refused("bad_option", {"schedule is \"linear\"", "\"constant\""}, [](TrainOptions& o) { o.schedule = "linear"; });
  refused("bad_option", {"seed is 43", "42"}, [](TrainOptions& o) { o.seed = 43; });
  refused("bad_option", {"epochs is 3", "2"}, [](TrainOptions& o) { o.epochs = 3; });
  refused("bad_option", {"topK is 1", "2"}, [](TrainOptions& o) { o.method.top_k = 1; });
  refused("mix_mismatch", {"mix is other", "counting"}, [](TrainOptions& o) { o.identity["mix"] = "other"; });
  refused("mix_mismatch", {"model is not set", "tiny"}, [](TrainOptions& o) { o.identity.erase("model"); });
  write_counting_shard(folder.path("train.safetensors"), 39, 1);
  refused("mix_mismatch", {"rows is 39", "40"}, [](TrainOptions&) {});
}

TEST_CASE("what does not decide the numbers may change on resume") {
  const TempFolder folder("free");
  TrainOptions options = tiny_run(folder, Method::pesc);
  const Told whole = train(into(options, folder, "whole"));
  options = into(options, folder, "stopped");
  const Told first = train(options, 4);
  options.resume_from = first.result.checkpoint;
  options.recompute = true;
  options.threads = 2;
  options.eval_steps = 2;
  options.save_steps = 1;
  options.keep_checkpoints = 5;
  const Told rest = train(options);
  REQUIRE(rest.error == "");
  check_same_checkpoint(whole.result.checkpoint, rest.result.checkpoint);
}

TEST_CASE("a fresh run does not write among another run's checkpoints") {
  const TempFolder folder("used");
  const TrainOptions options = tiny_run(folder, Method::lora);
  REQUIRE(train(options, 1).error == "");
  const Told second = train(options);
  CHECK(second.error_code == "bad_option");
  CHECK(second.error.find("step-000001") != std::string::npos);
}

TEST_CASE("resuming a finished run does nothing and says that it is finished") {
  const TempFolder folder("finished");
  TrainOptions options = tiny_run(folder, Method::lora);
  const Told whole = train(options);
  options.resume_from = whole.result.checkpoint;
  const Told again = train(options);
  CHECK(again.error == "");
  CHECK(again.result.reason == "finished");
  CHECK(again.result.checkpoint == whole.result.checkpoint);
  CHECK(again.steps.empty());
  CHECK(again.checkpoints.empty());
}
