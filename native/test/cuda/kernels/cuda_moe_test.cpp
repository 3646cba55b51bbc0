// Routing on the GPU against its CPU twin: choices, order and rows exactly, weights and gradients closely; ties, experts
// without a token, one with all, padding.
#include "cuda/cuda_test.h"
#include "kernels/dropout.h"
#include "kernels/moe.h"

using namespace caravan;
using namespace caravan::test;

namespace {

struct Shape {
  int64_t n, experts, top_k;
};

constexpr Shape shapes[] = {{1, 1, 1},   {1, 4, 2},     {7, 3, 3},      {67, 8, 2},   {301, 16, 4},
                            {513, 5, 1}, {1025, 16, 2}, {2048, 4, 2},   {5000, 8, 2}, {999, 64, 2},
                            {100, 2, 2}, {1024, 8, 1},  {70000, 16, 2}, {33, 400, 3}};

enum class Load : uint8_t { spread, hole, collapsed };

void make_logits(TwinArray<float>& logits, const Shape& shape, Load load) {
  std::mt19937 random(static_cast<uint32_t>(shape.n));
  for (int64_t i = 0; i < logits.count(); ++i) {
    float value = static_cast<float>(static_cast<int>(random() % 17) - 8) / 4.0f;
    if (load == Load::hole && i % shape.experts == 1) value = -20.0f;
    if (load == Load::collapsed && i % shape.experts == shape.experts - 1) value += 20.0f;
    logits[i] = value;
  }
  logits.to_device();
}

template <typename T>
T* on(const Exec& exec, TwinArray<T>& array) {
  return exec.device == Device::cpu ? array.host() : array.device();
}

template <typename T>
void fill_unused(TwinArray<T>& array) {
  for (int64_t i = 0; i < array.count(); ++i) array[i] = T(-7);
  array.to_device();
}

/// All that dispatch computes of one set of logits, on both devices.
struct Dispatched {
  TwinArray<float> logits, weights;
  TwinArray<int32_t> chosen, offsets, source, inverse;
  TwinArray<uint8_t> valid;
  bool padded;
  int64_t rows = 0;

  Dispatched(const Shape& s, Load load, bool has_padding)
      : logits(s.n * s.experts),
        weights(s.n * s.top_k),
        chosen(s.n * s.top_k),
        offsets(s.experts + 1),
        source(s.n * s.top_k),
        inverse(s.n * s.top_k),
        valid(s.n),
        padded(has_padding) {
    make_logits(logits, s, load);
    std::mt19937 random(3);
    for (int64_t t = 0; t < s.n; ++t) valid[t] = random() % 4 != 0;
    valid.to_device();
    fill_unused(source);
    for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
      router_topk_forward(exec, on(exec, chosen), on(exec, weights), on(exec, logits), s.n, s.experts, s.top_k);
      moe_sort(exec, on(exec, offsets), on(exec, source), on(exec, chosen), valid_on(exec), s.n, s.experts, s.top_k);
      if (exec.device == Device::cpu) rows = offsets[s.experts];
      moe_invert(exec, on(exec, inverse), on(exec, source), rows, s.n, s.top_k);
    }
  }
  const uint8_t* valid_on(const Exec& exec) { return padded ? on(exec, valid) : nullptr; }
};

/// Calls body(shape, dispatched, what) for every shape, load and padding.
template <typename Body>
void for_cases(Body body) {
  for (const Shape& shape : shapes) {
    for (const Load load : {Load::spread, Load::hole, Load::collapsed}) {
      for (const bool padded : {false, true}) {
        const std::string what = std::to_string(shape.n) + " tokens, " + std::to_string(shape.experts) +
                                 " experts, top " + std::to_string(shape.top_k) + ", load " +
                                 std::to_string(static_cast<int>(load)) + (padded ? ", padded" : "");
        Dispatched dispatched(shape, load, padded);
        body(shape, dispatched, what);
      }
    }
  }
}

template <typename T>
void compare_rows(const Shape& s, Dispatched& d, int64_t c, const std::string& what) {
  TwinArray<T> x(s.n * c), gathered(d.rows * c), y(s.n * c), sum(s.n * c), dout(d.rows * c), out(d.rows * c);
  TwinArray<T> masked(d.rows * c), dx(s.n * c), dx_masked(s.n * c), residual(s.n * c);
  TwinArray<uint32_t> kept(s.n * kept_words(c));
  for (int64_t i = 0; i < kept.count(); ++i) kept[i] = 0x5b6db6dbu >> i % 5;
  kept.to_device();
  TwinArray<float> dweights(s.n * s.top_k);
  x.fill(1);
  y.fill(2);
  sum.fill(3);
  out.fill(4);
  dout.fill(5);
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    moe_gather(exec, on(exec, gathered), on(exec, x), on(exec, d.source), nullptr, 1.0f, d.rows, c, s.top_k);
    moe_gather(exec, on(exec, masked), on(exec, x), on(exec, d.source), on(exec, kept), 1.25f, d.rows, c, s.top_k);
    moe_gather_backward(exec, on(exec, dx), on(exec, x), on(exec, out), on(exec, d.inverse), nullptr, 1.0f, s.n, c,
                        s.top_k);
    moe_gather_backward(exec, on(exec, dx_masked), on(exec, x), on(exec, out), on(exec, d.inverse), on(exec, kept),
                        1.25f, s.n, c, s.top_k);
    moe_combine_residual(exec, on(exec, residual), on(exec, x), on(exec, y), on(exec, out), on(exec, d.weights),
                         on(exec, d.inverse), s.n, c, s.top_k, 0.25f);
    moe_combine_forward(exec, on(exec, y), on(exec, out), on(exec, d.weights), on(exec, d.inverse), s.n, c, s.top_k,
                        0.25f);
    moe_combine_forward(exec, on(exec, sum), on(exec, out), nullptr, on(exec, d.inverse), s.n, c, s.top_k, 1.0f);
    moe_combine_backward(exec, on(exec, dout), on(exec, dweights), on(exec, x), on(exec, out), on(exec, d.weights),
                         on(exec, d.source), on(exec, d.inverse), s.n, d.rows, c, s.top_k, 0.25f);
  }
  check_equal(gathered, 0.0, what + " gather");
  check_equal(masked, 0.0, what + " masked gather");
  check_equal(dx, 0.0, what + " gather backward");
  check_equal(dx_masked, 0.0, what + " masked gather backward");
  check_equal(residual, 0.0, what + " combine with the residual");
  check_equal(y, 0.0, what + " combine");
  check_equal(sum, 0.0, what + " sum");
  check_equal(dout, 0.0, what + " dexpert_out");
  check_equal(dweights, 2e-6, what + " dweights");
}

}  // namespace

TEST_CASE("dispatch on the GPU: the CPU's choice, order and rows") {
  for_cases([](const Shape& s, Dispatched& d, const std::string& what) {
    check_equal(d.chosen, 0.0, what + " chosen");
    check_equal(d.offsets, 0.0, what + " offsets");
    check_equal(d.source, 0.0, what + " source");
    check_equal(d.inverse, 0.0, what + " inverse");
    check_equal(d.weights, 1e-6, what + " weights");

    TwinArray<float> dweights(s.n * s.top_k), dlogits(s.n * s.experts);
    dweights.fill(1);
    dlogits.fill(2);
    d.weights.to_device();
    for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
      router_topk_backward(exec, on(exec, dlogits), on(exec, dweights), on(exec, d.chosen), on(exec, d.weights), s.n,
                           s.experts, s.top_k);
    }
    check_equal(dlogits, 1e-6, what + " dlogits");
  });
}

TEST_CASE("gather and combination on the GPU equal their CPU twins, forward and backward") {
  for_cases([](const Shape& s, Dispatched& d, const std::string& what) {
    if (s.n > 2048) return;
    d.weights.to_device();
    for (const int64_t c : {1, 17, 40}) {
      compare_rows<float>(s, d, c, what);
      compare_rows<bf16>(s, d, c, what);
    }
  });
  Dispatched d({67, 8, 2}, Load::spread, true);
  d.weights.to_device();
  compare_rows<float>({67, 8, 2}, d, 4104, "wide");
  compare_rows<bf16>({67, 8, 2}, d, 4104, "wide");
}

TEST_CASE("the balance loss on the GPU equals its CPU twin, and its gradient") {
  for_cases([](const Shape& s, Dispatched& d, const std::string& what) {
    TwinArray<float> loss(1), probability(s.experts), dlogits(s.n * s.experts);
    TwinArray<int64_t> tokens(s.experts);
    for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
      balance_loss_forward(exec, on(exec, loss), on(exec, tokens), on(exec, probability), on(exec, d.logits),
                           on(exec, d.chosen), d.valid_on(exec), s.n, s.experts, s.top_k);
    }
    check_equal(tokens, 0.0, what + " tokens");
    check_equal(loss, 3e-6, what + " loss");
    check_equal(probability, 3e-6, what + " probability");
    for (int64_t i = 0; i < dlogits.count(); ++i) dlogits[i] = 0.0f;
    dlogits.to_device();
    for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
      balance_loss_backward(exec, on(exec, dlogits), 0.7f, on(exec, d.logits), on(exec, tokens), d.valid_on(exec), s.n,
                            s.experts, s.top_k);
    }
    // Where an expert's share is near the mean the difference cancels.
    check_equal(dlogits, 1e-5, what + " dlogits", 4e-7 * static_cast<double>(s.experts) / static_cast<double>(s.n));
  });
}

TEST_CASE("only padding: no rows, no loss, no gradient") {
  const Shape s{70, 4, 2};
  Dispatched d(s, Load::spread, true);
  for (int64_t t = 0; t < s.n; ++t) d.valid[t] = 0;
  d.valid.to_device();
  TwinArray<float> loss(1), probability(4), dlogits(s.n * 4);
  TwinArray<int64_t> tokens(4);
  dlogits.fill(1);
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    moe_sort(exec, on(exec, d.offsets), on(exec, d.source), on(exec, d.chosen), d.valid_on(exec), s.n, 4, 2);
    balance_loss_forward(exec, on(exec, loss), on(exec, tokens), on(exec, probability), on(exec, d.logits),
                         on(exec, d.chosen), d.valid_on(exec), s.n, 4, 2);
    balance_loss_backward(exec, on(exec, dlogits), 1.0f, on(exec, d.logits), on(exec, tokens), d.valid_on(exec), s.n, 4,
                          2);
  }
  for (int64_t e = 0; e <= 4; ++e) CHECK(d.offsets[e] == 0);
  check_equal(d.offsets, 0.0, "offsets");
  check_equal(tokens, 0.0, "tokens");
  check_equal(loss, 0.0, "loss");
  check_equal(probability, 0.0, "probability");
  check_equal(dlogits, 0.0, "dlogits");
}

TEST_CASE("no tokens: empty counts and nothing else") {
  TwinArray<int32_t> offsets(5);
  TwinArray<float> loss(1), probability(4);
  TwinArray<int64_t> tokens(4);
  for (const Exec& exec : {cpu_exec(), cuda_exec()}) {
    moe_sort(exec, on(exec, offsets), nullptr, nullptr, nullptr, 0, 4, 2);
    balance_loss_forward(exec, on(exec, loss), on(exec, tokens), on(exec, probability), nullptr, nullptr, nullptr, 0, 4,
                         2);
  }
  check_equal(offsets, 0.0, "offsets");
  check_equal(tokens, 0.0, "tokens");
  check_equal(loss, 0.0, "loss");
}

TEST_CASE("logits that are not numbers still name experts that exist") {
  const int64_t n = 40, e = 8, k = 2;
  TwinArray<float> logits(n * e), weights(n * k);
  TwinArray<int32_t> chosen(n * k);
  for (int64_t i = 0; i < n * e; ++i) logits[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? -INFINITY : 1.0f;
  logits.to_device();
  router_topk_forward(cuda_exec(), chosen.device(), weights.device(), logits.device(), n, e, k);
  for (const int32_t expert : chosen.from_device()) CHECK((expert >= 0 && expert < e));
}
