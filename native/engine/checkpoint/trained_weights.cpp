#include "engine/checkpoint/trained_weights.h"

#include <filesystem>

#include "engine/checkpoint/checkpoint.h"
#include "engine/model/adapter_folder.h"
#include "engine/platform/error.h"

namespace caravan {

std::shared_ptr<TrainableSet> load_trained_weights(const Exec& exec, const std::string& dir,
                                                   const ModelConfig& config) {
  const std::filesystem::path folder(dir);
  if (std::filesystem::exists(folder / checkpoint_manifest_name)) return load_checkpoint_weights(exec, dir, config);
  if (is_adapter_folder(dir)) return load_adapter_folder(exec, dir, config);
  throw EngineError("bad_file", dir + ": holds neither a checkpoint (" + checkpoint_manifest_name +
                                    ") nor an adapter (" + peft_config_name + " or " + adapter_config_name + ")");
}

}  // namespace caravan
