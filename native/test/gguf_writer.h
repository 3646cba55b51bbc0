// Writes GGUF files for tests, as right or as wrong as the test wants them.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace caravan::test {

class GgufWriter {
 public:
  void text(const std::string& key, const std::string& value) {
    begin(key, 8);
    put_text(values_, value);
  }
  void u32(const std::string& key, uint32_t value) {
    begin(key, 4);
    put(values_, value);
  }
  void f32(const std::string& key, float value) {
    begin(key, 6);
    put(values_, value);
  }
  void boolean(const std::string& key, bool value) {
    begin(key, 7);
    put(values_, static_cast<uint8_t>(value));
  }
  void texts(const std::string& key, const std::vector<std::string>& list) {
    begin_list(key, 8, list.size());
    for (const std::string& value : list) put_text(values_, value);
  }
  void i32s(const std::string& key, const std::vector<int32_t>& list) {
    begin_list(key, 5, list.size());
    for (const int32_t value : list) put(values_, value);
  }
  void f32s(const std::string& key, const std::vector<float>& list) {
    begin_list(key, 6, list.size());
    for (const float value : list) put(values_, value);
  }
  /// A list that says to hold `count` elements and holds none.
  void hollow_list(const std::string& key, uint32_t kind, uint64_t count) { begin_list(key, kind, count); }
  /// A value of a type with this number and no bytes.
  void unknown(const std::string& key, uint32_t kind) { begin(key, kind); }

  /// @param dimensions innermost first, as the file has them
  void tensor(const std::string& name, const std::vector<uint64_t>& dimensions, uint32_t type, uint64_t offset) {
    put_text(infos_, name);
    put(infos_, static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t extent : dimensions) put(infos_, extent);
    put(infos_, type);
    put(infos_, offset);
    ++tensors_;
  }
  /// An F32 tensor with its data, the next in the file.
  void tensor(const std::string& name, const std::vector<uint64_t>& dimensions, const std::vector<float>& values) {
    tensor(name, dimensions, 0, data.size());
    const auto* bytes = reinterpret_cast<const char*>(values.data());
    data.append(bytes, values.size() * sizeof(float));
    data.resize((data.size() + 31) / 32 * 32);
  }

  std::string file() const {
    std::string out = "GGUF";
    put(out, version);
    put(out, tensors_ + extra_tensors);
    put(out, count_ + extra_values);
    out += values_ + infos_;
    out.resize((out.size() + 31) / 32 * 32);
    return out + data;
  }

  uint32_t version = 3;
  uint64_t extra_tensors = 0;  // counted, but not there
  uint64_t extra_values = 0;
  std::string data;

 private:
  template <typename T>
  static void put(std::string& out, T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out.append(bytes, sizeof(T));
  }
  static void put_text(std::string& out, std::string_view value) {
    put(out, static_cast<uint64_t>(value.size()));
    out += value;
  }
  void begin(const std::string& key, uint32_t kind) {
    put_text(values_, key);
    put(values_, kind);
    ++count_;
  }
  void begin_list(const std::string& key, uint32_t kind, uint64_t count) {
    begin(key, 9);
    put(values_, kind);
    put(values_, count);
  }

  std::string values_;
  std::string infos_;
  uint64_t count_ = 0;
  uint64_t tensors_ = 0;
};

}  // namespace caravan::test
