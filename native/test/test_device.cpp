#include "test_device.h"

#include <cstdlib>
#include <memory>
#include <string_view>

#include "kernels/cuda_context.h"
#include "kernels/transfer.h"

namespace caravan::test {

Device test_device() {
  const char* name = std::getenv("CARAVAN_TEST_DEVICE");
  return name != nullptr && std::string_view(name) == "cuda" ? Device::cuda : Device::cpu;
}

Exec test_exec() {
  if (test_device() == Device::cpu) return {};
  static const std::shared_ptr<cuda::Context> context = make_cuda_context();
  return {Device::cuda, nullptr, context.get()};
}

std::vector<float> read_values(ConstPtr values, int64_t count) {
  std::vector<float> result(static_cast<size_t>(count));
  dispatch(values.dtype, [&]<typename T>() {
    std::vector<T> stored(static_cast<size_t>(count));
    download(test_exec(), stored.data(), values.data, stored.size() * sizeof(T));
    result.assign(stored.begin(), stored.end());
  });
  return result;
}

void write_values(Ptr values, const std::vector<float>& from) {
  dispatch(values.dtype, [&]<typename T>() {
    std::vector<T> stored;
    for (const float value : from) stored.push_back(T(value));
    upload(test_exec(), values.data, stored.data(), stored.size() * sizeof(T));
  });
}

}  // namespace caravan::test
