// Checkpoint folders: what is in them, what is refused, which of them are kept, and what a full disk costs.
#include <cmath>
#include <cstring>

#include "doctest/doctest.h"
#include "engine/checkpoint/checkpoint_tensors.h"
#include "engine/checkpoint/checkpoint_writer.h"
#include "engine/io/sha256.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;
namespace fs = std::filesystem;

namespace {

CheckpointManifest example_manifest() {
  CheckpointManifest manifest;
  manifest.progress = {12, 11, 1, 0.25, -1.0};
  manifest.total_steps = 100;
  manifest.rows = 40;
  manifest.tokens = 1000;
  manifest.held_out_loss = 1.5;
  manifest.defining = {{"lr", "0.0002"}, {"method", "\"pesc\""}};
  manifest.identity = {{"mix", "abc"}};
  manifest.files = {{"trainable.safetensors", {10, std::string(64, 'a')}}};
  return manifest;
}

/// A state of one tensor, filled with `value`, as if it were a whole run's.
struct SmallState {
  std::vector<float> values;
  explicit SmallState(float value, size_t count = 1000) : values(count, value) {}
  std::vector<TensorToWrite> tensors() const {
    return {{"w", StoredType::F32, {static_cast<int64_t>(values.size())}, std::as_bytes(std::span(values))}};
  }
};

CheckpointManifest at_step(int64_t step, double held_out_loss = NAN) {
  CheckpointManifest manifest = example_manifest();
  manifest.progress.step = step;
  manifest.held_out_loss = held_out_loss;
  return manifest;
}

std::vector<int64_t> steps_in(const std::string& dir) {
  std::vector<int64_t> steps;
  for (const CheckpointInfo& one : list_checkpoints(dir)) {
    CHECK(one.problem == "");
    steps.push_back(one.step);
  }
  return steps;
}

uint64_t roomy(const std::string&) { return uint64_t{1} << 40; }

}  // namespace

TEST_CASE("a manifest reads as it was written, and no byte of it can change") {
  const CheckpointManifest manifest = example_manifest();
  const std::string text = write_manifest(manifest);
  const CheckpointManifest read = parse_manifest(text, "manifest.json");
  CHECK(write_manifest(read) == text);
  CHECK(read.progress.step == 12);
  CHECK(read.progress.updates == 11);
  CHECK(read.progress.consecutive_skips == 1);
  CHECK(read.progress.step_zero_difference == 0.25);
  CHECK(read.progress.quantization_difference == -1.0);
  CHECK(read.total_steps == 100);
  CHECK(read.held_out_loss == 1.5);
  CHECK(read.defining == manifest.defining);
  CHECK(read.identity == manifest.identity);
  CHECK(read.bytes() == 10);
  CHECK(read.options().method.method == Method::pesc);
  int refused = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    try {
      parse_manifest(damaged, "manifest.json");
    } catch (const EngineError& error) {
      CHECK(error.code == "bad_file");
      CHECK(std::string(error.what()).starts_with("manifest.json: "));
      ++refused;
    }
  }
  CHECK(refused == static_cast<int>(text.size()));
  CHECK_THROWS_AS(parse_manifest(text.substr(0, text.size() - 1), "m"), EngineError);
  CHECK_THROWS_AS(parse_manifest("[]", "m"), EngineError);
  CHECK_THROWS_AS(parse_manifest("", "m"), EngineError);
}

TEST_CASE("what is not a number survives a manifest") {
  CheckpointManifest manifest = example_manifest();
  manifest.held_out_loss = NAN;
  manifest.progress.step_zero_difference = INFINITY;
  const CheckpointManifest read = parse_manifest(write_manifest(manifest), "m");
  CHECK(std::isnan(read.held_out_loss));
  CHECK(std::isinf(read.progress.step_zero_difference));
}

TEST_CASE("a checkpoint's bytes depend on the state alone") {
  const TempFolder folder("bytes");
  for (const char* name : {"a", "b"}) {
    fs::create_directories(folder.path(name));
    CheckpointSnapshot snapshot;
    const SmallState weights(1.0f), state(2.0f);
    snapshot.take(exec_with_threads(name[0] == 'a' ? 1 : 3), weights.tensors(), state.tensors());
    const CheckpointWritten written = write_checkpoint(folder.path(name), snapshot, at_step(7), roomy);
    CHECK(written.step == 7);
    CHECK(written.path == folder.path(name) + "/step-000007");
    CHECK(written.bytes > 8000);
  }
  int files = 0;
  for (const auto& entry : fs::directory_iterator(folder.path("a/step-000007"))) {
    CHECK(read_file(entry.path().string()) ==
          read_file(folder.path("b/step-000007/") + entry.path().filename().string()));
    ++files;
  }
  CHECK(files == 3);
}

TEST_CASE("the last K and the best by held-out loss are kept") {
  const TempFolder folder("kept");
  const std::string dir = folder.path("checkpoints");
  CheckpointWriter writer(dir, 2, roomy);
  const SmallState state(1.0f);
  std::vector<int64_t> told;
  const double losses[] = {3.0, 2.0, NAN, 2.5, 2.0, 4.0};
  for (int64_t step = 1; step <= 6; ++step) {
    const auto before =
        writer.write(Exec(), state.tensors(), state.tensors(), at_step(step, losses[static_cast<size_t>(step - 1)]));
    if (before) told.push_back(before->step);
  }
  if (const auto last = writer.finish()) told.push_back(last->step);
  CHECK(told == std::vector<int64_t>{1, 2, 3, 4, 5, 6});
  CHECK(steps_in(dir) == std::vector<int64_t>{6, 5, 2});  // of two equals the earlier one
  CHECK_FALSE(writer.finish().has_value());
  CHECK_FALSE(writer.poll().has_value());
}

TEST_CASE("damaged checkpoints take no place among the kept, and the last whole one is never deleted") {
  const TempFolder folder("pruned");
  const std::string dir = folder.path();
  CheckpointSnapshot snapshot;
  const SmallState state(1.0f);
  snapshot.take(Exec(), state.tensors(), state.tensors());
  for (int64_t step = 1; step <= 4; ++step) write_checkpoint(dir, snapshot, at_step(step), roomy);
  for (const int64_t step : {2, 3, 4}) write_file(dir + "/" + checkpoint_name(step) + "/manifest.json", "{}");
  prune_checkpoints(dir, 1, 4);
  CHECK(steps_in(dir) == std::vector<int64_t>{1});
  write_file(dir + "/step-000001/manifest.json", "{}");
  prune_checkpoints(dir, 1, 4);
  CHECK(list_checkpoints(dir).size() == 1);  // with nothing whole nothing is deleted
}

TEST_CASE("checkpoints of later steps are left until the run comes to them again") {
  const TempFolder folder("later");
  CheckpointSnapshot old_state, new_state;
  const SmallState old_values(1.0f), new_values(2.0f);
  old_state.take(Exec(), old_values.tensors(), old_values.tensors());
  new_state.take(Exec(), new_values.tensors(), new_values.tensors());
  for (const int64_t step : {1, 2, 8}) write_checkpoint(folder.path(), old_state, at_step(step), roomy);
  prune_checkpoints(folder.path(), 1, 2);
  CHECK(steps_in(folder.path()) == std::vector<int64_t>{8, 2});
  write_checkpoint(folder.path(), new_state, at_step(8), roomy);
  prune_checkpoints(folder.path(), 1, 8);
  CHECK(steps_in(folder.path()) == std::vector<int64_t>{8});
  const SafetensorsFile file = SafetensorsFile::open(folder.path("step-000008/trainable.safetensors"));
  CHECK(file.as<float>(file.get("w"))[5] == 2.0f);
}

TEST_CASE("a full disk is found before writing, and costs neither the checkpoint before nor anything else") {
  const TempFolder folder("full");
  const std::string dir = folder.path("checkpoints");
  bool full = false;
  CheckpointWriter writer(dir, 1, [&](const std::string&) { return full ? uint64_t{4000} : uint64_t{1} << 40; });
  const SmallState state(1.0f);
  writer.write(Exec(), state.tensors(), state.tensors(), at_step(1));
  CHECK(writer.finish().has_value());
  full = true;
  writer.write(Exec(), state.tensors(), state.tensors(), at_step(2));
  try {
    writer.finish();
    FAIL("a checkpoint was written on a full disk");
  } catch (const EngineError& error) {
    CHECK(error.code == "disk_full");
    CHECK(std::string(error.what()).find("step-000002") != std::string::npos);
  }
  CHECK(steps_in(dir) == std::vector<int64_t>{1});
  int entries = 0;
  for (const auto& entry : fs::directory_iterator(dir)) {
    CHECK(entry.path().filename() == "step-000001");
    ++entries;
  }
  CHECK(entries == 1);
  full = false;  // the run can go on once there is room
  writer.write(Exec(), state.tensors(), state.tensors(), at_step(2));
  CHECK(writer.finish().has_value());
}

TEST_CASE("a write that fails half-way deletes its hidden folder alone") {
  const TempFolder folder("half");
  CheckpointSnapshot snapshot;
  const SmallState state(1.0f);
  snapshot.take(Exec(), state.tensors(), state.tensors());
  write_checkpoint(folder.path(), snapshot, at_step(1), roomy);
  CheckpointSnapshot broken;  // its tensor has fewer bytes than its shape says: the writer refuses in the middle
  broken.take(Exec(), {{"w", StoredType::F32, {999}, state.tensors()[0].data}}, state.tensors());
  CHECK_THROWS_AS(write_checkpoint(folder.path(), broken, at_step(2), roomy), EngineError);
  CHECK(steps_in(folder.path()) == std::vector<int64_t>{1});
  CHECK_FALSE(fs::exists(folder.path(".step-000002.partial")));
}

TEST_CASE("names that are no checkpoint's are not taken for one") {
  const TempFolder folder("names");
  for (const char* name :
       {"step-", "step-12", "step-0000012", "step-abcdef", "step--00001", "checkpoint", ".step-000001"}) {
    fs::create_directories(folder.path(name));
  }
  write_file(folder.path("step-000009"), "a file");
  CHECK(list_checkpoints(folder.path()).empty());
  fs::create_directories(folder.path("step-1000000"));
  fs::create_directories(folder.path("step-999999"));
  const std::vector<CheckpointInfo> found = list_checkpoints(folder.path());
  REQUIRE(found.size() == 2);
  CHECK(found[0].step == 1000000);
  CHECK(found[0].problem != "");
  CHECK(list_checkpoints(folder.path("nowhere")).empty());
}

TEST_CASE("a checkpoint alone says how its model was crafted; its weights are those of the run") {
  for (const Method method : {Method::lora, Method::pesc, Method::full, Method::upcycle}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const TempFolder folder("weights");
      TrainOptions options = tiny_run(folder, method);
      options.train_dtype = dtype;
      options.method.adapter_scale = 0.25f;
      options.max_steps = 3;
      const Told told = train(options);
      REQUIRE(told.error == "");
      const auto set = load_checkpoint_weights(Exec(), told.result.checkpoint, tiny_config());
      CHECK(set->method().method == method);
      CHECK(set->method().lora_rank == 4);
      CHECK(set->method().num_experts == 4);
      CHECK(set->method().top_k == 2);
      CHECK(set->method().adapter_scale == 0.25f);
      CHECK(set->dtype() == dtype);
      const SafetensorsFile file = SafetensorsFile::open(told.result.checkpoint + "/trainable.safetensors");
      int64_t compared = 0;
      for (const Parameter& parameter : set->parameters()) {
        const auto bytes = file.bytes(file.get(parameter.name));
        CHECK(std::memcmp(parameter.value.data, bytes.data(), bytes.size()) == 0);
        CHECK(parameter.gradient.data == nullptr);
        compared += parameter.count;
      }
      CHECK(compared == set->count());

      // A model of another shape, and a damaged file.
      ModelConfig other = tiny_config();
      other.num_layers = 3;
      CHECK_THROWS_AS(load_checkpoint_weights(Exec(), told.result.checkpoint, other), EngineError);
      const std::string path = told.result.checkpoint + "/trainable.safetensors";
      std::string damaged = read_file(path);
      damaged[damaged.size() - 5] = static_cast<char>(damaged[damaged.size() - 5] ^ 64);
      write_file(path, damaged);
      CHECK_THROWS_AS(load_checkpoint_weights(Exec(), told.result.checkpoint, tiny_config()), EngineError);
      CHECK(list_checkpoints(options.checkpoint_dir)[0].problem.find("trainable.safetensors") != std::string::npos);
    }
  }
}

TEST_CASE("a run keeps the last K and the best, and every checkpoint it told of was whole") {
  const TempFolder folder("run-kept");
  TrainOptions options = tiny_run(folder, Method::full);
  options.save_steps = 1;
  options.eval_steps = 1;
  options.keep_checkpoints = 2;
  options.lr = 0.05f;  // so high that the best is not the last
  const Told told = train(options);
  REQUIRE(told.error == "");
  CHECK(told.checkpoints.size() == 10);
  size_t best = 1;
  for (size_t i = 1; i < told.evaluations.size(); ++i) {
    if (told.evaluations[i].loss < told.evaluations[best].loss) best = i;
  }
  std::vector<int64_t> expected = {10, 9};
  if (told.evaluations[best].step < 9) expected.push_back(told.evaluations[best].step);
  CHECK(steps_in(options.checkpoint_dir) == expected);
  CHECK(expected.size() == 3);  // else this case shows nothing
  CHECK(read_checkpoint_manifest(told.result.checkpoint).held_out_loss == told.evaluations.back().loss);
}
