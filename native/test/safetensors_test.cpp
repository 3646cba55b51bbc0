// The safetensors reader on what it must refuse, and the writer against the reader.
#include "engine/io/safetensors.h"

#include <cstring>
#include <filesystem>
#include <fstream>

#include "doctest/doctest.h"
#include "engine/platform/error.h"

using namespace caravan;

namespace {

namespace fs = std::filesystem;

struct TestFolder {
  fs::path path = fs::temp_directory_path() / ("caravan-safetensors-" + std::to_string(process_id()));
  TestFolder() { fs::create_directories(path); }
  ~TestFolder() { fs::remove_all(path); }

  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path / name, std::ios::binary) << bytes;
    return (path / name).string();
  }
};

std::string length_prefix(uint64_t length) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[static_cast<size_t>(i)] = static_cast<char>(length >> (8 * i) & 255);
  return bytes;
}

std::string file_of(const std::string& header, size_t data_bytes) {
  return length_prefix(header.size()) + header + std::string(data_bytes, '\0');
}

/// The code and message with which opening is refused; empty when it is not.
std::string refusal(const std::string& path) {
  try {
    SafetensorsFile::open(path);
  } catch (const EngineError& error) {
    return error.code + ": " + error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("hostile headers are refused with the file's name") {
  const TestFolder folder;
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)";
  const std::pair<const char*, std::string> cases[] = {
      {"empty", ""},
      {"seven bytes", "\1\0\0\0\0\0"},
      {"header longer than the file", length_prefix(1000) + "{}"},
      {"header of 10 GB", length_prefix(10'000'000'000) + "{}"},
      {"header length near 2^64", length_prefix(~uint64_t{0}) + "{}"},
      {"no object", file_of("[]", 0)},
      {"no JSON", file_of("{\"a\":", 0)},
      {"data cut short", file_of(good + R"("b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})", 12)},
      {"data left over", file_of(good + R"("b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})", 20)},
      {"overlap", file_of(good + R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12)},
      {"same bytes twice", file_of(good + R"("b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8)},
      {"hole", file_of(good + R"("b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})", 20)},
      {"end before begin", file_of(good + R"("b":{"dtype":"F32","shape":[0],"data_offsets":[8,4]}})", 8)},
      {"size unlike its shape", file_of(good + R"("b":{"dtype":"F32","shape":[3],"data_offsets":[8,16]}})", 16)},
      {"shape that overflows",
       file_of(good + R"("b":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[8,8]}})", 8)},
      {"negative shape", file_of(good + R"("b":{"dtype":"F32","shape":[-2],"data_offsets":[8,16]}})", 16)},
      {"negative offset", file_of(good + R"("b":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", 8)},
      {"offset near 2^64",
       file_of(good + R"("b":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]}})",
               8)},
      {"unknown type", file_of(good + R"("b":{"dtype":"F33","shape":[2],"data_offsets":[8,16]}})", 16)},
      {"one name twice", file_of(good + R"("a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})", 16)},
      {"metadata that is no text", file_of(R"({"__metadata__":{"a":1}})", 0)},
  };
  for (const auto& [what, bytes] : cases) {
    CAPTURE(what);
    const std::string message = refusal(folder.write("model.safetensors", bytes));
    CHECK(message.starts_with("bad_file: "));
    CHECK(message.find("model.safetensors") != std::string::npos);
  }
}

TEST_CASE("every truncation of a good file is refused") {
  const TestFolder folder;
  const float values[3] = {1.0f, -2.0f, 3.0f};
  const std::string path = (folder.path / "whole.safetensors").string();
  write_safetensors(path, {{"v", StoredType::F32, {3}, std::as_bytes(std::span(values))}}, {{"k", "w"}});
  std::ifstream stream(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  REQUIRE(refusal(path).empty());
  for (size_t length = 0; length < bytes.size(); ++length) {
    CAPTURE(length);
    CHECK(refusal(folder.write("cut.safetensors", bytes.substr(0, length))).starts_with("bad_file: "));
  }
}

TEST_CASE("what is written is read again: scalars, empty tensors, every width, metadata") {
  const TestFolder folder;
  const double wide = 0.5;
  const uint8_t bytes[5] = {1, 2, 3, 4, 5};
  const bf16 halves[2] = {bf16(1.5f), bf16(-3.0f)};
  const std::string path = (folder.path / "kinds.safetensors").string();
  write_safetensors(path,
                    {{"bytes", StoredType::U8, {5}, std::as_bytes(std::span(bytes))},
                     {"halves", StoredType::BF16, {1, 2}, std::as_bytes(std::span(halves))},
                     {"nothing", StoredType::F32, {0, 7}, {}},
                     {"scalar", StoredType::F64, {}, std::as_bytes(std::span(&wide, 1))}},
                    {{"format", "pt"}, {"quote", "\"\n"}});
  const SafetensorsFile file = SafetensorsFile::open(path);
  CHECK(file.tensors().size() == 4);
  CHECK(file.metadata().at("quote") == "\"\n");
  CHECK(file.as<double>(file.get("scalar"))[0] == 0.5);
  CHECK(file.get("scalar").shape.empty());
  CHECK(file.get("nothing").elements() == 0);
  CHECK(std::memcmp(file.bytes(file.get("bytes")).data(), bytes, 5) == 0);
  float read[2] = {};
  read_tensor(file, file.get("halves"), Ptr{read, DType::f32});
  CHECK(read[0] == 1.5f);
  CHECK(read[1] == -3.0f);
  CHECK(file.find("absent") == nullptr);
  CHECK_THROWS_WITH_AS(file.get("absent"), doctest::Contains("absent"), EngineError);
}
