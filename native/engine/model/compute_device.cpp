#include "engine/model/compute_device.h"

#include <algorithm>
#include <cctype>

#include "engine/platform/error.h"

namespace caravan {

DevicePlace parse_device(const std::string& name, const std::string& what) {
  if (name == "cpu") return {Device::cpu, 0};
  if (name == "cuda") return {Device::cuda, 0};
  const std::string digits = name.starts_with("cuda:") ? name.substr(5) : "";
  const bool number = !digits.empty() && digits.size() <= 2 &&
                      std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  if (!number)
    throw EngineError("bad_option", what + " is \"" + name + "\"; it must be cpu, cuda, or cuda:1 and so on");
  return {Device::cuda, std::stoi(digits)};
}

}  // namespace caravan
