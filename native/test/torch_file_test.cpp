// PyTorch's .bin checkpoints, written by torch (record_torch.py), against what safetensors has of the same tensors; and what
// must be refused.
#include <filesystem>

#include "doctest/doctest.h"
#include "engine/infer/inference_model.h"
#include "engine/io/model_identity.h"
#include "engine/io/torch_file.h"
#include "engine/io/torch_pickle.h"
#include "engine/model/model_summary.h"
#include "engine/platform/error.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;
namespace fs = std::filesystem;

namespace {

std::string torch_path(const std::string& name) { return std::string(CARAVAN_TEST_DIR) + "/torch/" + name; }

std::string refusal(const std::function<void()>& use) {
  try {
    use();
  } catch (const EngineError& error) {
    CHECK(error.code == "bad_file");
    return error.what();
  }
  return "not refused";
}

std::string refusal_of(const std::string& name) {
  return refusal([&] { TorchFile::open(torch_path(name)); });
}

std::vector<PickledTensor> read_pickle(const std::string& pickle) {
  return read_torch_pickle("x.bin", std::as_bytes(std::span(pickle)));
}

}  // namespace

TEST_CASE("every type, shape and view that torch.save writes") {
  const SafetensorsFile expected = SafetensorsFile::open(torch_path("kinds.safetensors"));
  for (const char* name : {"kinds.bin", "protocol4.bin"}) {
    CAPTURE(name);
    const TorchFile file = TorchFile::open(torch_path(name));
    REQUIRE(file.tensors().size() == 15);
    CHECK(file.tensors()[0].name == "f32");
    for (const TensorInfo& tensor : file.tensors()) {
      CAPTURE(tensor.name);
      const TensorInfo& other = expected.get(tensor.name);
      CHECK(tensor.type == other.type);
      CHECK(tensor.shape == other.shape);
      CHECK(std::ranges::equal(file.bytes(tensor), expected.bytes(other)));
    }
  }
  CHECK(TorchFile::open(torch_path("module_state.bin")).get("weight").shape == std::vector<int64_t>{2, 3});
  CHECK(TorchFile::open(torch_path("plain.bin")).get("weight").size == 24);
}

TEST_CASE("a folder with pytorch_model.bin is the model that safetensors has, whole and in shards") {
  for (const char* name : {"whole", "sharded"}) {
    CAPTURE(name);
    const TempFolder folder("torch");
    const std::string twin = folder.path("twin");
    fs::create_directories(twin);
    fs::copy(torch_path(name) + "/config.json", twin + "/config.json");
    fs::copy(torch_path(name) + "/expected.safetensors", twin + "/model.safetensors");
    CHECK(hash_model(torch_path(name)) == hash_model(twin));
    CHECK(summarize_model(torch_path(name)).parameters.total == summarize_model(twin).parameters.total);
    std::vector<std::vector<float>> logits;
    for (const std::string& dir : {torch_path(name), twin}) {
      OpenModelOptions options;
      options.model_dir = dir;
      options.base_dtype = BaseDType::f32;
      options.threads = 1;
      logits.push_back(InferenceModel::open(options)->logits(std::vector<int32_t>{0, 5, 9, 31}));
    }
    CHECK(logits[0] == logits[1]);
  }
}

TEST_CASE("what rebuilds no tensor is refused by name, and nothing of it is run") {
  CHECK(refusal_of("evil.bin").find("asks for posix.system") != std::string::npos);
  CHECK(refusal_of("module.bin").find("asks for torch.nn.modules.linear.Linear") != std::string::npos);
  CHECK(refusal_of("unknown_storage.bin").find("asks for torch.load") != std::string::npos);
  CHECK(refusal_of("nested.bin").find("'state_dict' is no tensor") != std::string::npos);
  CHECK(refusal_of("before_1_6.bin").find("before 1.6") != std::string::npos);
  CHECK(refusal([] { read_pickle("\x80\x02}\x8c\x01x(i__builtin__\neval\n."); }).find("instruction 105") !=
        std::string::npos);
}

TEST_CASE("places and sizes that lie are refused") {
  const std::pair<const char*, const char*> cases[] = {
      {"turned.bin", "not stored row by row"},
      {"overlapping.bin", "not stored row by row"},
      {"wraps.bin", "that no tensor has"},
      {"huge.bin", "that no tensor has"},
      {"beyond.bin", "ends beyond its storage of 24 elements"},
      {"negative.bin", "ends beyond its storage"},
      {"storage_lies.bin", "which has 24"},
      {"no_storage.bin", "storage that is not there"},
      {"packed.bin", "is compressed"},
      {"big_endian.bin", "another byte order"},
  };
  for (const auto& [name, words] : cases) {
    CAPTURE(name);
    CHECK(refusal_of(name).find(words) != std::string::npos);
  }
  const TempFolder folder("torch-cut");
  const std::string whole = read_file(torch_path("plain.bin"));
  for (size_t size = 0; size < whole.size(); size += 7) {
    CAPTURE(size);
    write_file(folder.path("cut.bin"), whole.substr(0, size));
    CHECK(refusal([&] { TorchFile::open(folder.path("cut.bin")); }) != "not refused");
  }
  fs::create_directories(folder.path("model"));
  fs::copy(torch_path("whole/config.json"), folder.path("model/config.json"));
  write_file(folder.path("model/pytorch_model.bin.index.json"), R"({"weight_map": {}})");
  CHECK(refusal([&] { ModelTensors::open(folder.path("model")); }).find("names no tensor") != std::string::npos);
}

TEST_CASE("values that nest deep, hold themselves or never end cost no more than their bytes") {
  std::string deep = "\x80\x02)";
  deep.append(900'000, '\x85');
  CHECK(refusal([&] { read_pickle(deep + "."); }).find("no dictionary of tensors") != std::string::npos);
  deep.append(200'000, '\x85');
  CHECK(refusal([&] { read_pickle(deep + "."); }).find("more values than any checkpoint") != std::string::npos);
  std::string itself(
      "\x80\x02]q\x00h\x00"
      "a.",
      9);
  CHECK(refusal([&] { read_pickle(itself); }).find("no dictionary of tensors") != std::string::npos);
  CHECK(read_pickle("\x80\x02}.").empty());
  for (const std::string& cut : {std::string(), std::string("\x80"), std::string("X\xff\xff\xff\xff", 5)})
    CHECK(refusal([&] { read_pickle(cut); }).find("damaged") != std::string::npos);
}
