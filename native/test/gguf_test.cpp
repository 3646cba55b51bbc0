// Reading GGUF: every tensor type against gguf's own dequantisation, typed metadata, and hostile files.
#include "engine/io/gguf.h"

#include <cstring>
#include <functional>
#include <vector>

#include "doctest/doctest.h"
#include "gguf_writer.h"
#include "kernels/error.h"
#include "tiny_run.h"

using namespace caravan;
using test::GgufWriter;

namespace {

const std::string recorded = std::string(CARAVAN_TEST_DIR) + "/recorded/gguf-types.gguf";

/// The message with which the file is refused.
std::string refusal_of_bytes(const std::string& bytes) {
  const test::TempFolder folder("gguf");
  const std::string path = folder.path("m.gguf");
  test::write_file(path, bytes);
  try {
    GgufFile::open(path);
  } catch (const EngineError& error) {
    CHECK(error.code == "bad_file");
    CHECK(std::string(error.what()).find("m.gguf: ") != std::string::npos);
    return error.what();
  }
  FAIL("was not refused");
  return {};
}
std::string refusal(const std::function<void(GgufWriter&)>& write) {
  GgufWriter writer;
  write(writer);
  return refusal_of_bytes(writer.file());
}
void check_holds(const std::string& text, const std::string& part) {
  CAPTURE(text);
  CHECK(text.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("every tensor type equals gguf's dequantisation to the bit") {
  const GgufFile file = GgufFile::open(recorded);
  int types = 0;
  for (const auto& [name, tensor] : file.tensors()) {
    if (name.ends_with(".expected")) continue;
    CAPTURE(name);
    CHECK(ggml_layout(tensor.type).name == name);
    CHECK(tensor.shape == std::vector<int64_t>{2, 512});
    std::vector<float> values(1024);
    dequantize_blocks(tensor.type, file.bytes(tensor), values.data());
    const std::span<const std::byte> expected = file.bytes(*file.find(name + ".expected"));
    REQUIRE(expected.size() == 4096);
    // -0 and 0 are the same number; gguf and ggml differ in them.
    int wrong = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      float want;
      std::memcpy(&want, expected.data() + 4 * i, 4);
      wrong += values[i] != want;
    }
    CHECK(wrong == 0);
    ++types;
  }
  CHECK(types == 11);
}

TEST_CASE("metadata keep their types") {
  const GgufFile file = GgufFile::open(recorded);
  CHECK(file.text("general.architecture") == "llama");
  CHECK(file.integer("test.u8") == 200);
  CHECK(file.integer("test.i16") == -3);
  CHECK(file.integer("test.u64") == int64_t{1} << 40);
  CHECK(file.number("test.f64") == 0.1);
  CHECK(file.number("test.i16") == -3.0);
  CHECK(file.boolean("test.bool") == true);
  CHECK(file.text("test.text") == "naïve");
  CHECK(file.texts("test.texts") == std::vector<std::string>{"a", "", "ab"});
  CHECK(file.integers("test.integers") == std::vector<int64_t>{1, -2, 3});
  CHECK(file.integers("test.u8") == std::vector<int64_t>{200});
  CHECK(file.numbers("test.numbers") == std::vector<float>{0.5f, -1.5f});
  CHECK_FALSE(file.text("test.absent"));
  CHECK_THROWS_WITH_AS(file.text("test.u8"), doctest::Contains("'test.u8' must be a string"), EngineError);
  CHECK_THROWS_WITH_AS(file.integer("test.f64"), doctest::Contains("must be a whole number"), EngineError);
  CHECK_THROWS_WITH_AS(file.integer("test.integers"), doctest::Contains("must be a whole number"), EngineError);
  CHECK_THROWS_WITH_AS(file.number("test.text"), doctest::Contains("must be a number"), EngineError);
  CHECK_THROWS_WITH_AS(file.texts("test.integers"), doctest::Contains("a list of strings"), EngineError);
}

TEST_CASE("hostile files are refused by file and key or tensor") {
  const uint64_t huge = uint64_t{1} << 62;
  check_holds(refusal_of_bytes("GGUF"), "too short");
  check_holds(refusal_of_bytes(std::string(64, 'x')), "does not begin with GGUF");
  check_holds(refusal([](auto& w) { w.version = 1; }), "version 1");
  check_holds(refusal([](auto& w) { w.version = 0x03000000; }), "big-endian");
  check_holds(refusal([&](auto& w) { w.extra_values = huge; }), "metadata values, more than it holds");
  check_holds(refusal([&](auto& w) { w.extra_tensors = huge; }), "tensors, more than it holds");
  check_holds(refusal([&](auto& w) { w.hollow_list("a.list", 8, huge); }), "'a.list' counts");
  check_holds(refusal([&](auto& w) { w.hollow_list("a.list", 10, huge); }), "'a.list' counts");
  check_holds(refusal([](auto& w) { w.hollow_list("a.list", 9, 1); }), "'a.list' is a list of lists");
  check_holds(refusal([](auto& w) { w.hollow_list("a.list", 77, 1); }), "'a.list' has the unknown type 77");
  check_holds(refusal([](auto& w) { w.unknown("a.key", 13); }), "'a.key' has the unknown type 13");
  check_holds(refusal([](auto& w) {
                w.u32("a.key", 1);
                w.u32("a.key", 2);
              }),
              "'a.key' is there twice");
  check_holds(refusal([](auto& w) { w.u32("general.alignment", 48); }), "'general.alignment' is 48");
  check_holds(refusal([](auto& w) { w.u32("general.alignment", 0); }), "'general.alignment' is 0");

  const std::vector<float> eight(8, 1.0f);
  check_holds(refusal([&](auto& w) { w.tensor("t", {8, huge}, 0, 0); }), "tensor 't' has an extent");
  check_holds(refusal([&](auto& w) {
                w.tensor("t", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0);
              }),
              "'t' is too large");
  check_holds(refusal([&](auto& w) { w.tensor("t", {0}, 0, 0); }), "'t' has an extent of 0");
  check_holds(refusal([&](auto& w) { w.tensor("t", {1, 1, 1, 1, 1}, 0, 0); }), "'t' has 5 dimensions");
  check_holds(refusal([&](auto& w) { w.tensor("t", {256}, 10, 0); }), "'t' is of ggml type 10");
  check_holds(refusal([&](auto& w) { w.tensor("t", {33}, 8, 0); }), "no whole blocks of Q8_0");
  check_holds(refusal([&](auto& w) { w.tensor("t", {8}, 0, 0); }), "'t' ends 32 bytes after offset 0");
  check_holds(refusal([&](auto& w) { w.tensor("t", {8}, 0, huge); }), "'t' ends");
  check_holds(refusal([&](auto& w) { w.tensor("t", {8}, 0, 4); }), "no multiple of the alignment");
  check_holds(refusal([&](auto& w) { w.tensor(std::string(65, 'n'), {8}, 0, 0); }), "65 bytes long");
  check_holds(refusal([&](auto& w) {
                w.tensor("t", {8}, eight);
                w.tensor("t", {8}, eight);
              }),
              "'t' is there twice");
  check_holds(refusal([&](auto& w) {
                w.tensor("t", {16}, std::vector<float>(16));
                w.tensor("u", {8}, 0, 32);
              }),
              "'t' and 'u' overlap");
}

TEST_CASE("a file cut short anywhere is refused") {
  GgufWriter writer;
  writer.text("general.name", "cut");
  writer.texts("a.list", {"one", "two"});
  writer.tensor("t", {8}, std::vector<float>(8));
  const std::string whole = writer.file();
  for (size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    refusal_of_bytes(whole.substr(0, size));
  }
}

TEST_CASE("a file with any byte changed loads or is refused") {
  GgufWriter writer;
  writer.text("general.name", "mutated");
  writer.texts("a.list", {"one", "two"});
  writer.tensor("t", {4, 2}, std::vector<float>(8));
  const std::string whole = writer.file();
  const test::TempFolder folder("gguf-mutated");
  const std::string path = folder.path("m.gguf");
  int loaded = 0, refused = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const int bits : {0x01, 0x80, 0xFF}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ bits);
      test::write_file(path, changed);
      try {
        const GgufFile file = GgufFile::open(path);
        for (const auto& [name, tensor] : file.tensors()) {
          std::vector<float> values(static_cast<size_t>(tensor.elements()));
          dequantize_blocks(tensor.type, file.bytes(tensor), values.data());
        }
        ++loaded;
      } catch (const EngineError& error) {
        CHECK(error.code == "bad_file");
        ++refused;
      }
    }
  }
  CHECK(loaded > 0);
  CHECK(refused > 0);
}
