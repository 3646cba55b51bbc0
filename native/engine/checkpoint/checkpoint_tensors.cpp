#include "engine/checkpoint/checkpoint_tensors.h"

#include <filesystem>

#include "engine/platform/error.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

StoredType stored_type(DType dtype) { return dtype == DType::f32 ? StoredType::F32 : StoredType::BF16; }

std::span<const std::byte> bytes_of(const void* data, size_t size) {
  return {static_cast<const std::byte*>(data), size};
}

/// `wanted` are views of the device's memory, into which the file's bytes go.
void read_exactly(const Exec& exec, const std::string& dir, const char* name,
                  const std::vector<TensorToWrite>& wanted) {
  const std::string path = (std::filesystem::path(dir) / name).string();
  const SafetensorsFile file = SafetensorsFile::open(path);
  const auto bad = [&](const std::string& what) {
    throw EngineError("bad_file", path + ": " + what + ", so it is no checkpoint of this model and method");
  };
  if (file.tensors().size() != wanted.size()) {
    bad("holds " + std::to_string(file.tensors().size()) + " tensors instead of " + std::to_string(wanted.size()));
  }
  for (const TensorToWrite& tensor : wanted) {
    const TensorInfo* stored = file.find(tensor.name);
    if (stored == nullptr) bad("has no tensor '" + tensor.name + "'");
    if (stored->type != tensor.type || stored->shape != tensor.shape) {
      bad("tensor '" + tensor.name + "' has another type or shape");
    }
  }
  for (const TensorToWrite& tensor : wanted) {
    const std::span<const std::byte> bytes = file.bytes(file.get(tensor.name));
    upload(exec, const_cast<std::byte*>(tensor.data.data()), bytes.data(), bytes.size());
  }
  synchronize(exec);  // paged state is read by another stream
}

}  // namespace

std::vector<TensorToWrite> trainable_tensors(const TrainableSet& set) {
  std::vector<TensorToWrite> tensors;
  for (const Parameter& parameter : set.parameters()) {
    const size_t bytes = static_cast<size_t>(parameter.count) * size_of(parameter.value.dtype);
    tensors.push_back(
        {parameter.name, stored_type(parameter.value.dtype), parameter.shape, bytes_of(parameter.value.data, bytes)});
  }
  return tensors;
}

std::vector<TensorToWrite> optimizer_tensors(AdamW& optimizer) {
  std::vector<TensorToWrite> tensors;
  for (const StateArray& array : optimizer.arrays()) {
    tensors.push_back({array.name,
                       array.element_bytes == 1 ? StoredType::U8 : StoredType::F32,
                       {array.count},
                       bytes_of(array.data, static_cast<size_t>(array.count * array.element_bytes))});
  }
  return tensors;
}

void read_trainable_values(const Exec& exec, const std::string& dir, TrainableSet& set) {
  read_exactly(exec, dir, checkpoint_trainable_name, trainable_tensors(set));
}

void read_optimizer_state(const Exec& exec, const std::string& dir, AdamW& optimizer) {
  read_exactly(exec, dir, checkpoint_optimizer_name, optimizer_tensors(optimizer));
}

}  // namespace caravan
