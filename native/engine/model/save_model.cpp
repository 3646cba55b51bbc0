#include "engine/model/save_model.h"

#include <filesystem>
#include <fstream>

#include "engine/io/safetensors.h"
#include "engine/platform/error.h"
#include "kernels/activation.h"

namespace caravan {

void save_dense_model(const std::string& dir, const ModelConfig& config, const TrainableSet& set, DType dtype) {
  if (set.method().method != Method::full) {
    throw EngineError("bad_option", std::string("a run of method ") + method_name(set.method().method) +
                                        " is no dense model; only full can be written as one");
  }
  std::filesystem::create_directories(dir);
  std::vector<DeviceBuffer> converted;
  std::vector<TensorToWrite> tensors;
  for (const Parameter& parameter : set.parameters()) {
    converted.push_back(DeviceBuffer::of(Device::cpu, dtype, parameter.count));
    const DeviceBuffer& values = converted.back();
    convert(Exec(), values.ptr(dtype), parameter.value, parameter.count);
    tensors.push_back({parameter.name,
                       dtype == DType::f32 ? StoredType::F32 : StoredType::BF16,
                       parameter.shape,
                       {reinterpret_cast<const std::byte*>(values.data()), values.bytes()}});
  }
  write_safetensors(dir + "/model.safetensors", std::move(tensors), {{"format", "pt"}});
  const std::string file = dir + "/config.json";
  std::ofstream stream(file, std::ios::binary);
  stream << write_model_config(config, dtype == DType::f32 ? "float32" : "bfloat16");
  stream.close();
  if (!stream) throw EngineError("disk_full", file + ": could not be written; free space on this disk");
}

}  // namespace caravan
