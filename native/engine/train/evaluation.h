// Held-out loss by source, dropout off. Touches no gradient, no random state: training's bits stay as they are.
#pragma once

#include "engine/data/token_shard.h"
#include "engine/model/decoder.h"
#include "engine/train/metrics.h"
#include "engine/train/train_options.h"

namespace caravan {

EvaluationMetrics evaluate_shard(Decoder& decoder, const TokenShard& shard, const TrainOptions& options, int64_t step);

}  // namespace caravan
