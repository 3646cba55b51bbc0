#include "engine/infer/generation.h"

namespace caravan {

const char* stop_reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::eos: return "eos";
    case StopReason::stop_string: return "stop_string";
    case StopReason::length: return "length";
    case StopReason::context: return "context";
    case StopReason::cancelled: break;
  }
  return "cancelled";
}

}  // namespace caravan
