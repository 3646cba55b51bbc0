// A seeded fuzzer over the files that people bring: safetensors, PyTorch's .bin, GGUF, config.json and tokenizer.json. Each mutated file
// loads, or is refused with a message; none crashes, hangs, or takes memory by a number from the file. Run with more
// mutations, and under AddressSanitizer, by the long tests (CARAVAN_FUZZ_MUTATIONS).
#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "doctest/doctest.h"
#include "engine/data/tokenizer.h"
#include "engine/export/write_export.h"
#include "engine/infer/inference_model.h"
#include "engine/io/gguf.h"
#include "engine/io/torch_file.h"
#include "engine/model/model_summary.h"
#include "engine/platform/error.h"
#include "tiny_run.h"

using namespace caravan;
using namespace caravan::test;
namespace fs = std::filesystem;

namespace {

int mutations() {
  const char* asked = std::getenv("CARAVAN_FUZZ_MUTATIONS");
  return asked == nullptr ? 60 : std::atoi(asked);
}

/// Numbers that are a function of seed and place alone.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  size_t below(size_t count) { return static_cast<size_t>(next() % count); }

 private:
  uint64_t state_;
};

/// One to four defects; most of them near the front, where headers are.
std::string mutate(std::string bytes, Random& random) {
  static const uint64_t interesting[] = {0,          1,          0x7f,       0x80,         0xff,
                                         0x7fffffff, 0x80000000, 0xffffffff, ~uint64_t{0}, uint64_t{1} << 62};
  const size_t defects = 1 + random.below(4);
  for (size_t i = 0; i < defects && !bytes.empty(); ++i) {
    const size_t front = std::min<size_t>(bytes.size(), random.below(2) == 0 ? 64 : 4096);
    const size_t at = random.below(random.below(4) == 0 ? bytes.size() : front);
    switch (random.below(7)) {
      case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8))); break;
      case 1: bytes[at] = static_cast<char>(random.next()); break;
      case 2: bytes.resize(at); break;
      case 3: bytes.insert(at, bytes.substr(random.below(bytes.size()), random.below(64))); break;
      case 4: bytes.erase(at, random.below(32)); break;
      case 5: {
        const uint64_t value = interesting[random.below(std::size(interesting))];
        const size_t width = size_t{1} << random.below(4);
        for (size_t byte = 0; byte < width && at + byte < bytes.size(); ++byte)
          bytes[at + byte] = static_cast<char>(value >> (8 * byte));
        break;
      }
      default: {
        // Text files: another digit, bracket or quote where one was.
        static const std::string marks = "0123456789-[]{}\",:.eE ";
        const size_t digit = bytes.find_first_of("0123456789[]{}\"", at);
        if (digit != std::string::npos) bytes[digit] = marks[random.below(marks.size())];
      }
    }
  }
  return bytes;
}

struct Tally {
  int loaded = 0;
  int refused = 0;
};

/// `use` opens the mutated file; what it throws must say something, with a code that people can look up.
template <typename Use>
Tally fuzz(const std::string& path, uint64_t seed, Use&& use) {
  const std::string whole = read_file(path);
  Tally tally;
  for (int i = 0; i < mutations(); ++i) {
    CAPTURE(i);
    Random random(seed * 1000003 + static_cast<uint64_t>(i));
    write_file(path, mutate(whole, random));
    const auto start = std::chrono::steady_clock::now();
    try {
      use();
      ++tally.loaded;
    } catch (const EngineError& error) {
      ++tally.refused;
      CHECK(std::string(error.what()).size() > 10);
      const bool is_expected = error.code == "bad_file" || error.code == "unsupported_architecture" ||
                               error.code == "tokenizer_invalid" || error.code == "bad_option";
      CHECK_MESSAGE(is_expected, error.code << ": " << error.what());
    }
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  }
  write_file(path, whole);
  CHECK(tally.loaded + tally.refused == mutations());
  CHECK(tally.refused > mutations() / 10);
  return tally;
}

void open_and_run(const std::string& path) {
  summarize_model(path);
  OpenModelOptions options;
  options.model_dir = path;
  options.base_dtype = BaseDType::f32;
  options.threads = 1;
  const auto model = InferenceModel::open(options);
  const std::vector<int32_t> row = {0, 1, 2, 3};
  if (model->config().vocab_size > 3 && model->context_length() >= 4) model->logits(row);
}

}  // namespace

TEST_CASE("mutated safetensors and config.json") {
  const TempFolder folder("hostile");
  write_tiny_model(folder.path("model"));
  fuzz(folder.path("model/model.safetensors"), 1, [&] { open_and_run(folder.path("model")); });
  fuzz(folder.path("model/config.json"), 2, [&] { open_and_run(folder.path("model")); });
}

TEST_CASE("mutated published sparse models and their configuration") {
  const TempFolder folder("hostile-sparse");
  for (const char* name : {"camelidae", "sparsetral"}) {
    const std::string dir = folder.path(name);
    fs::copy(std::string(CARAVAN_TEST_DIR) + "/published/" + name, dir);
    fuzz(dir + "/config.json", 3, [&] { open_and_run(dir); });
    fuzz(dir + "/model.safetensors", 4, [&] { open_and_run(dir); });
  }
}

TEST_CASE("mutated checkpoints of PyTorch and their index") {
  const TempFolder folder("hostile-torch");
  const std::string from = std::string(CARAVAN_TEST_DIR) + "/torch/";
  fs::copy(from + "whole", folder.path("whole"));
  fs::copy(from + "sharded", folder.path("sharded"));
  fuzz(folder.path("whole/pytorch_model.bin"), 9, [&] { open_and_run(folder.path("whole")); });
  fuzz(folder.path("sharded/pytorch_model.bin.index.json"), 10, [&] { open_and_run(folder.path("sharded")); });
  const std::string kinds = folder.path("kinds.bin");
  fs::copy(from + "kinds.bin", kinds);
  fuzz(kinds, 11, [&] {
    const TorchFile file = TorchFile::open(kinds);
    uint8_t sum = 0;
    for (const TensorInfo& tensor : file.tensors())
      for (const std::byte value : file.bytes(tensor))
        sum = static_cast<uint8_t>(sum + std::to_integer<uint8_t>(value));
    volatile uint8_t used = sum;
    static_cast<void>(used);
  });
}

TEST_CASE("mutated GGUF files of every type") {
  const TempFolder folder("hostile-gguf");
  const std::string path = folder.path("types.gguf");
  fs::copy(std::string(CARAVAN_TEST_DIR) + "/recorded/gguf-types.gguf", path);
  fuzz(path, 5, [&] {
    const GgufFile file = GgufFile::open(path);
    for (const auto& [name, tensor] : file.tensors()) {
      std::vector<float> values(static_cast<size_t>(tensor.elements()));
      dequantize_blocks(tensor.type, file.bytes(tensor), values.data());
    }
  });
}

TEST_CASE("mutated tokenizer.json") {
  const TempFolder folder("hostile-tokenizer");
  const std::string path = folder.path("tokenizer.json");
  fs::copy(std::string(CARAVAN_TEST_DIR) + "/../../demo/base/tokenizer.json", path);
  fuzz(path, 6, [&] {
    const auto tokenizer = Tokenizer::from_file(path);
    const std::vector<int32_t> ids = tokenizer->encode("Hello, 123 wörld \xE3\x81\x82!");
    tokenizer->decode(ids);
  });
}

TEST_CASE("mutated adapters") {
  const TempFolder folder("hostile-adapter");
  TrainOptions run = tiny_run(folder, Method::pesc);
  run.epochs = 1;
  const Told told = train(run);
  REQUIRE(told.error == "");
  ExportOptions options;
  options.model_dir = run.model_dir;
  options.checkpoint_dir = told.result.checkpoint;
  options.base = {run.base_dtype, run.double_quant, DType::bf16};
  options.layout = ExportLayout::adapter;
  options.out_dir = folder.path("adapter");
  fs::create_directories(options.out_dir);
  write_export(TrainedModel::open(Exec(), options, {}), options, {});
  const auto use = [&] {
    OpenModelOptions open;
    open.model_dir = run.model_dir;
    open.checkpoint_dir = options.out_dir;
    open.threads = 1;
    InferenceModel::open(open);
  };
  fuzz(folder.path("adapter/caravan_adapter.json"), 7, use);
  fuzz(folder.path("adapter/caravan_adapter.safetensors"), 8, use);
}
