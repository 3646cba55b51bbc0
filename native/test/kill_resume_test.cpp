// The programs of native/tools from outside: SIGKILL at any moment costs nothing but time, SIGTERM ends with a
// checkpoint, and documents become shards without losing a token.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "doctest/doctest.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/data/token_shard.h"
#include "engine/io/safetensors.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;
namespace fs = std::filesystem;

namespace {

/// A child process with its output in a file.
class Child {
 public:
  Child(const std::string& program, std::vector<std::string> arguments, const std::string& output) {
    arguments.insert(arguments.begin(), program);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    id_ = fork();
    if (id_ != 0) return;
    if (freopen(output.c_str(), "w", stderr) == nullptr) _exit(126);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  void send(int signal) const { kill(id_, signal); }
  /// The exit code, or minus the signal that ended it.
  int wait() const {
    int status = 0;
    waitpid(id_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t id_;
};

std::string options_json(const TempFolder& folder, const std::string& checkpoints, int64_t epochs) {
  const nlohmann::json json = {{"modelDir", folder.path("model")},
                               {"trainShard", folder.path("train.safetensors")},
                               {"validationShard", folder.path("validation.safetensors")},
                               {"checkpointDir", folder.path(checkpoints)},
                               {"method", "full"},
                               {"baseDtype", "f32"},
                               {"computeDtype", "f32"},
                               {"trainDtype", "bf16"},
                               {"optimizer", "adamw8bit"},
                               {"batchSize", 8},
                               {"microBatchSize", 2},
                               {"seqLen", 24},
                               {"epochs", epochs},
                               {"evalSteps", 6},
                               {"saveSteps", 2},
                               {"threads", 1}};
  const std::string path = folder.path(checkpoints + ".json");
  write_file(path, json.dump());
  return path;
}

std::string hidden_name_in(const std::string& dir) {
  for (const auto& entry : fs::directory_iterator(dir)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step-")) return name;
  }
  return "";
}

void check_same_checkpoint(const std::string& a, const std::string& b) {
  for (const char* file : {"trainable.safetensors", "optimizer.safetensors", "manifest.json"}) {
    INFO(std::string(file));
    CHECK(fs::exists(fs::path(a) / file));
    CHECK(read_file(a + "/" + file) == read_file(b + "/" + file));
  }
}

int kills() {
  const char* asked = std::getenv("CARAVAN_TEST_KILLS");
  return asked != nullptr ? std::atoi(asked) : 12;
}

}  // namespace

TEST_CASE("killed at random moments and resumed until it ends, a run ends with an uninterrupted one's bytes") {
  const TempFolder folder("sigkill");
  tiny_run(folder, Method::full);
  const int64_t epochs = 24;  // 120 steps, 60 checkpoints
  const auto start = std::chrono::steady_clock::now();
  REQUIRE(Child(CARAVAN_TRAIN, {options_json(folder, "whole", epochs)}, folder.path("whole.log")).wait() == 0);
  const double whole_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();

  const std::string options = options_json(folder, "killed", epochs), dir = folder.path("killed");
  std::mt19937 random(7);  // where it strikes depends on the machine's pace anyway
  int killed = 0, left_hidden = 0, code = -1;
  for (int attempt = 0; attempt < 200 && code != 0; ++attempt) {
    std::vector<std::string> arguments = {options};
    if (!list_checkpoints(dir).empty()) arguments.insert(arguments.end(), {"--resume", dir});
    const Child child(CARAVAN_TRAIN, arguments, folder.path("killed.log"));
    if (killed < kills()) {
      const double share = std::uniform_real_distribution<double>(0.05, 0.3)(random);
      std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(whole_ms * share));
      child.send(SIGKILL);
    }
    code = child.wait();
    INFO(read_file(folder.path("killed.log")));
    REQUIRE((code == 0 || code == -SIGKILL));
    if (code == -SIGKILL) ++killed;
    if (fs::exists(dir) && !hidden_name_in(dir).empty()) ++left_hidden;
    // Whatever has the name of a checkpoint is whole.
    for (const CheckpointInfo& one : list_checkpoints(dir)) CHECK(one.problem == "");
  }
  REQUIRE(code == 0);
  MESSAGE(killed << " kills, " << left_hidden << " of them inside a write or a deletion");
  CHECK(killed > 0);
  CHECK(hidden_name_in(dir).empty());
  check_same_checkpoint(folder.path("whole/step-000120"), dir + "/step-000120");
}

TEST_CASE("SIGTERM ends a run after its step with a checkpoint and exit code 4; the model is written") {
  const TempFolder folder("sigterm");
  tiny_run(folder, Method::full);
  const Child child(CARAVAN_TRAIN,
                    {options_json(folder, "checkpoints", 100000), "--metrics", folder.path("metrics.jsonl"),
                     "--save-model", folder.path("saved")},
                    folder.path("log"));
  for (int i = 0; i < 600 && list_checkpoints(folder.path("checkpoints")).empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  child.send(SIGTERM);
  CHECK(child.wait() == 4);
  const std::vector<CheckpointInfo> list = list_checkpoints(folder.path("checkpoints"));
  REQUIRE_FALSE(list.empty());
  CHECK(list.front().problem == "");

  // The last step of the metrics is the checkpoint's, and the saved model holds its weights in bf16.
  std::istringstream lines(read_file(folder.path("metrics.jsonl")));
  int64_t last = 0;
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    if (json["type"] == "step") last = json["step"];
  }
  CHECK(last == list.front().step);
  const auto set = load_checkpoint_weights(Exec(), list.front().path, tiny_config());
  const SafetensorsFile model = SafetensorsFile::open(folder.path("saved/model.safetensors"));
  CHECK(model.tensors().size() == set->parameters().size());
  for (const Parameter& parameter : set->parameters()) {
    if (parameter.shape.size() == 1) continue;  // norms are f32 in the set
    const auto bytes = model.bytes(model.get(parameter.name));
    CHECK(std::memcmp(bytes.data(), parameter.value.data, bytes.size()) == 0);
  }
  CHECK(read_model_config(folder.path("saved")).parameter_count() == tiny_config().parameter_count());
}

TEST_CASE("bad options end the trainer with exit code 2 and the field's name") {
  const TempFolder folder("bad-options");
  tiny_run(folder, Method::full);
  const auto refused = [&](const std::string& text, const char* word) {
    write_file(folder.path("bad.json"), text);
    CHECK(Child(CARAVAN_TRAIN, {folder.path("bad.json")}, folder.path("log")).wait() == 2);
    const std::string log = read_file(folder.path("log"));
    INFO(log);
    CHECK(log.find(word) != std::string::npos);
  };
  refused("{", "bad.json: not valid JSON");
  refused(R"({"learningRate": 1})", "learningRate is no training option");
  refused(R"({"lr": "fast"})", "lr is \"fast\"");
  refused(R"({"method": "full"})", "modelDir");
  CHECK(Child(CARAVAN_TRAIN, {"--max-minutes", "soon", "x"}, folder.path("log")).wait() == 2);
  CHECK(Child(CARAVAN_TRAIN, {folder.path("none.json")}, folder.path("log")).wait() == 2);
}

TEST_CASE("documents become rows of BOS, text and EOS; long ones are cut so that every token is predicted once") {
  const TempFolder folder("pack");
  // The printable ASCII bytes as tokens, after three special ones.
  nlohmann::json vocab = {{"<s>", 0}, {"</s>", 1}};
  for (int c = 33; c < 127; ++c) vocab[std::string(1, static_cast<char>(c))] = c;
  const auto special = [](int id, const char* content) {
    return nlohmann::json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                          {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  const nlohmann::json tokenizer = {
      {"version", "1.0"},
      {"added_tokens", {special(0, "<s>"), special(1, "</s>")}},
      {"pre_tokenizer",
       {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
  fs::create_directories(folder.path("model"));
  write_file(folder.path("model/tokenizer.json"), tokenizer.dump());
  nlohmann::json config = nlohmann::json::parse(tiny_config_json());
  config["bos_token_id"] = 0;
  config["eos_token_id"] = 1;
  write_file(folder.path("model/config.json"), config.dump());

  std::string documents;
  std::vector<std::string> texts;
  for (int i = 0; i < 60; ++i) {
    std::string text;
    for (int j = 0; j < 1 + i * 7 % 50; ++j) text += static_cast<char>('a' + (i + j) % 26);
    texts.push_back(text);
    documents += nlohmann::json{{"text", text}, {"more", i}}.dump() + "\n";
  }
  texts[0] = "</s>";  // spelled like a special token, but a document's text
  documents = nlohmann::json{{"text", texts[0]}}.dump() + documents.substr(documents.find('\n'));
  write_file(folder.path("documents.jsonl"), documents);
  const std::vector<std::string> arguments = {folder.path("documents.jsonl"),
                                              "--model",
                                              folder.path("model"),
                                              "--out",
                                              folder.path("train.safetensors"),
                                              "--held-out",
                                              folder.path("held.safetensors"),
                                              "--every",
                                              "10",
                                              "--seq-len",
                                              "16",
                                              "--source",
                                              "letters",
                                              "--threads",
                                              "3"};
  INFO(read_file(folder.path("log")));
  REQUIRE(Child(CARAVAN_PACK, arguments, folder.path("log")).wait() == 0);
  const TokenShard train = TokenShard::open(folder.path("train.safetensors"), 127);
  const TokenShard held = TokenShard::open(folder.path("held.safetensors"), 127);
  CHECK(train.sources() == std::vector<std::string>{"letters"});

  // Put the documents together again: a row that does not begin with BOS goes on where the one before ended.
  const auto texts_of = [](const TokenShard& shard) {
    std::vector<std::vector<int32_t>> whole;
    for (int64_t r = 0; r < shard.rows(); ++r) {
      const ShardRow row = shard.row(r);
      CHECK(row.ids.size() >= 2);
      CHECK(row.ids.size() <= 16);
      CHECK(row.target_count() == static_cast<int64_t>(row.ids.size()) - 1);
      if (row.ids.front() == 0) {
        whole.emplace_back(row.ids.begin(), row.ids.end());
      } else {
        CHECK(row.ids.front() == whole.back().back());
        whole.back().insert(whole.back().end(), row.ids.begin() + 1, row.ids.end());
      }
    }
    return whole;
  };
  const auto in_train = texts_of(train), in_held = texts_of(held);
  REQUIRE(in_train.size() == 54);
  REQUIRE(in_held.size() == 6);
  size_t next_train = 0, next_held = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    std::vector<int32_t> expected = {0};
    for (const char c : texts[i]) expected.push_back(c);
    expected.push_back(1);
    CHECK((i % 10 == 9 ? in_held[next_held++] : in_train[next_train++]) == expected);
  }

  write_file(folder.path("documents.jsonl"), documents + "{\"words\": 1}\n");
  CHECK(Child(CARAVAN_PACK, arguments, folder.path("log")).wait() == 2);
  CHECK(read_file(folder.path("log")).find("line 61") != std::string::npos);
}
