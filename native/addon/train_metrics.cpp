#include "addon/train_metrics.h"

#include "addon/values.h"

namespace caravan::addon {

namespace {

Napi::Object source_loss(Napi::Env env, const SourceLoss& source) {
  const Napi::Object item = Napi::Object::New(env);
  item.Set("source", source.source);
  item.Set("loss", number(env, source.loss));
  item.Set("targetTokens", number(env, source.target_tokens));
  return item;
}

Napi::Value difference(Napi::Env env, double measured) { return measured < 0.0 ? env.Null() : number(env, measured); }

}  // namespace

Napi::Value opened_to_js(Napi::Env env, const SessionOpened& opened) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("stepZeroDifference", number(env, opened.step_zero_difference));
  result.Set("quantizationDifference", difference(env, opened.quantization_difference));
  return result;
}

Napi::Value step_to_js(Napi::Env env, const StepMetrics& metrics) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("step", number(env, metrics.step));
  result.Set("totalSteps", number(env, metrics.total_steps));
  result.Set("epoch", number(env, metrics.epoch));
  result.Set("loss", number(env, metrics.loss));
  result.Set("lossBySource", array_of(env, metrics.loss_by_source, source_loss));
  result.Set("balanceLoss", number(env, metrics.balance_loss));
  result.Set("balanceGradNorm", number(env, metrics.balance_grad_norm));
  result.Set("lr", number(env, metrics.lr));
  result.Set("gradNorm", number(env, metrics.grad_norm));
  result.Set("skipped", metrics.skipped);
  result.Set("tokens", number(env, metrics.tokens));
  result.Set("targetTokens", number(env, metrics.target_tokens));
  result.Set("paddingTokens", number(env, metrics.padding_tokens));
  result.Set("stepMs", number(env, metrics.step_ms));
  result.Set("tokensPerSecond", number(env, metrics.tokens_per_second));
  result.Set("memoryBytes", number(env, metrics.memory_bytes));
  result.Set("expertShares", float32_array(env, metrics.expert_shares));
  result.Set("rows", int32_array(env, metrics.rows));
  result.Set("rowLosses", float32_array(env, metrics.row_losses));
  return result;
}

Napi::Value evaluation_to_js(Napi::Env env, const EvaluationMetrics& metrics) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("step", number(env, metrics.step));
  result.Set("loss", number(env, metrics.loss));
  result.Set("bySource", array_of(env, metrics.by_source, [](Napi::Env e, const SourceLoss& source) {
               const Napi::Object item = source_loss(e, source);
               item.Set("rows", number(e, source.rows));
               return item;
             }));
  result.Set("evaluationMs", number(env, metrics.evaluation_ms));
  return result;
}

Napi::Value written_to_js(Napi::Env env, const CheckpointWritten& checkpoint) {
  const Napi::Object result = Napi::Object::New(env);
  result.Set("step", number(env, checkpoint.step));
  result.Set("path", checkpoint.path);
  result.Set("bytes", number(env, checkpoint.bytes));
  result.Set("problem", env.Null());
  return result;
}

Napi::Value result_to_js(Napi::Env env, const TrainResult& result) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("reason", result.reason);
  object.Set("step", number(env, result.step));
  object.Set("totalSteps", number(env, result.total_steps));
  object.Set("checkpoint", result.checkpoint.empty() ? env.Null() : text(env, result.checkpoint));
  object.Set("stepZeroDifference", number(env, result.step_zero_difference));
  object.Set("quantizationDifference", difference(env, result.quantization_difference));
  return object;
}

}  // namespace caravan::addon
