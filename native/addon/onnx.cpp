#include "addon/onnx.h"

#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "addon/environment.h"
#include "addon/exporting.h"
#include "addon/generation.h"
#include "addon/inference.h"
#include "addon/js_error.h"
#include "addon/options.h"
#include "addon/promise.h"
#include "addon/values.h"
#include "engine/export/verify_onnx.h"

namespace caravan::addon {

namespace {

constexpr int64_t max_offset = int64_t{1} << 53;

OnnxPart to_part(Napi::Value value, const std::string& call) {
  OptionReader reader(value, call);
  OnnxPart part;
  part.origin.name = reader.text("name");
  part.origin.parameter = reader.flag("parameter");
  part.rows = reader.integer("rows", 1, max_offset);
  part.cols = reader.integer("cols", 1, max_offset);
  reader.finish();
  return part;
}

OnnxTensor to_tensor(Napi::Value value, const std::string& call) {
  OptionReader reader(value, call);
  OnnxTensor tensor;
  tensor.name = reader.text("name");
  tensor.form = parse_onnx_form(reader.text("form"));
  tensor.offset = static_cast<uint64_t>(reader.integer("offset", 0, max_offset));
  tensor.scales_offset = static_cast<uint64_t>(reader.integer_or("scalesOffset", 0, max_offset, 0));
  tensor.zeros_offset = static_cast<uint64_t>(reader.integer_or("zerosOffset", 0, max_offset, 0));
  tensor.batch = reader.integer("batch", 1, max_count);
  tensor.transposed = reader.flag("transposed");
  const Napi::Value parts = reader.required("parts");
  if (!parts.IsArray() || parts.As<Napi::Array>().Length() == 0) {
    throw EngineError("bad_option", reader.name("parts") + " must be an array of parts");
  }
  const Napi::Array array = parts.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) tensor.parts.push_back(to_part(array[i], reader.name("parts")));
  reader.finish();
  return tensor;
}

std::vector<OnnxTensor> to_tensors(Napi::Value value, const std::string& what) {
  if (!value.IsArray()) throw EngineError("bad_option", what + " must be an array of tensors");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<OnnxTensor> tensors;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::HandleScope scope(value.Env());
    tensors.push_back(to_tensor(array[i], what));
  }
  return tensors;
}

std::vector<std::vector<float>> to_logits(Napi::Value value, const std::string& what) {
  if (!value.IsArray()) throw EngineError("bad_option", what + " must be an array of Float32Arrays");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<std::vector<float>> rows;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::HandleScope scope(value.Env());
    const Napi::Value row = array[i];
    if (!row.IsTypedArray() || row.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) {
      throw EngineError("bad_option", what + " must be an array of Float32Arrays");
    }
    const Napi::Float32Array values = row.As<Napi::Float32Array>();
    rows.emplace_back(values.Data(), values.Data() + values.ElementLength());
  }
  return rows;
}

Napi::Value logits_to_js(Napi::Env env, const std::vector<std::vector<float>>& rows) {
  return array_of(env, rows, [](Napi::Env e, const std::vector<float>& row) { return float32_array(e, row); });
}

}  // namespace

Napi::Value describe_onnx_export(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    return PromiseWorker<std::string>::run(
        info.Env(), [options = to_export_options(info[0], "describeOnnxExport")] { return describe_onnx(options); },
        [](Napi::Env env, const std::string& json) { return from_json(env, json); });
  });
}

Napi::Value export_onnx(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    ExportOptions options = to_export_options(info[0], "exportOnnx");
    std::vector<OnnxTensor> tensors = to_tensors(info[1], "exportOnnx: tensors");
    std::string path = to_text(info[2], "exportOnnx: path");
    std::vector<std::vector<int32_t>> rows = to_rows(info[3], "exportOnnx: rows");
    const int threads = options.threads;
    return start_export(info.Env(), info[4], threads,
                        [options = std::move(options), tensors = std::move(tensors), path = std::move(path),
                         rows = std::move(rows)](const Exec& exec, const ExportWatch& watch) -> Task::Settle {
                          const TrainedModel model = TrainedModel::open(exec, options, watch);
                          write_onnx_data(exec, model, tensors, path, watch);
                          return [found = verify_onnx(model, options, tensors, path, rows, watch)](Napi::Env env) {
                            const Napi::Object result = Napi::Object::New(env);
                            result.Set("parity", from_json(env, reference_json(found)));
                            result.Set("logits", logits_to_js(env, found.logits));
                            result.Set("trained", found.has_trained ? logits_to_js(env, found.trained) : env.Null());
                            return result;
                          };
                        });
  });
}

Napi::Value compare_model_logits(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&]() -> Napi::Value {
    auto reference = to_logits(info[0], "compareLogits: reference");
    auto other = to_logits(info[1], "compareLogits: other");
    const int64_t vocab = to_integer(info[2], "compareLogits: vocab", 1, max_count);
    const auto fits = [&](size_t row) {
      return reference[row].size() == other[row].size() && reference[row].size() % static_cast<size_t>(vocab) == 0;
    };
    bool alike = reference.size() == other.size();
    for (size_t row = 0; alike && row < reference.size(); ++row) alike = fits(row);
    if (!alike) throw EngineError("bad_option", "compareLogits: the rows of both must be (tokens, vocab) alike");
    return PromiseWorker<std::string>::run(
        info.Env(),
        [reference = std::move(reference), other = std::move(other), vocab] {
          return to_json(compare_logits(reference, other, vocab)).dump();
        },
        [](Napi::Env env, const std::string& json) { return from_json(env, json); });
  });
}

Napi::Function AnswerObject::define(Napi::Env env) {
  return DefineClass(env, "AddonAnswer", {InstanceMethod<&AnswerObject::next>("next")});
}

Napi::Value AnswerObject::create(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const GenerationRequest request = to_generation_request(info[0]);
    const int64_t vocab = to_integer(info[1], "createAnswer: vocabSize", 1, max_count);
    const int64_t context = to_integer(info[2], "createAnswer: contextLength", 1, max_count);
    const auto open = std::make_shared<Open>(Open{Answer(request.options, vocab, context), vocab});
    return construct(info.Env(), Environment::of(info.Env()).answer_class, open);
  });
}

AnswerObject::AnswerObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<AnswerObject>(info) {
  open_ = take_payload<const std::shared_ptr<Open>>(info, "createAnswer");
}

Napi::Value AnswerObject::next(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Value given = info[0];
    if (!given.IsTypedArray() || given.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array ||
        given.As<Napi::Float32Array>().ElementLength() != static_cast<size_t>(open_->vocab_size)) {
      throw EngineError("bad_option", "next: logits must be a Float32Array of one number for each id");
    }
    const GeneratedToken token = open_->answer.next(given.As<Napi::Float32Array>().Data());
    const std::optional<StopReason> reason = open_->answer.reason();
    const Napi::Object result = Napi::Object::New(info.Env());
    result.Set("id", number(info.Env(), int64_t{token.id}));
    result.Set("text", text(info.Env(), token.text));
    result.Set("logprob", number(info.Env(), token.logprob));
    result.Set("stopReason", reason ? text(info.Env(), stop_reason_name(*reason)) : info.Env().Null());
    return result;
  });
}

}  // namespace caravan::addon
