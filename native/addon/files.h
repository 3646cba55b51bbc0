// What core/engine/AddonTypes.ts says about files: hashes, models, safetensors, GGUF, token shards, the order of rows.
#pragma once

#include <napi.h>

#include "engine/model/model_summary.h"

namespace caravan::addon {

Napi::Value hash_file(const Napi::CallbackInfo& info);
Napi::Value hash_model_folder(const Napi::CallbackInfo& info);
Napi::Value inspect_model(const Napi::CallbackInfo& info);
Napi::Value inspect_safetensors(const Napi::CallbackInfo& info);
Napi::Value inspect_gguf_tokenizer(const Napi::CallbackInfo& info);
Napi::Value write_shard(const Napi::CallbackInfo& info);
Napi::Value read_shard_info(const Napi::CallbackInfo& info);
Napi::Value read_shard_rows(const Napi::CallbackInfo& info);
Napi::Value order_rows(const Napi::CallbackInfo& info);

}  // namespace caravan::addon
