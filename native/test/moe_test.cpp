// Routing against its definition: which row went to which expert, in which order and with which weight; the gradients
// against finite differences; experts with no token, all tokens on one, padding.
#include "kernels/moe.h"

#include <algorithm>
#include <numeric>

#include "kernels/cpu/thread_pool.h"
#include "kernels/dropout.h"
#include "typed_array.h"

using namespace caravan;
using namespace caravan::test;

namespace {

struct Shape {
  int64_t n, experts, top_k;
};

constexpr Shape shapes[] = {{1, 1, 1}, {1, 4, 2}, {7, 3, 3}, {67, 8, 2}, {301, 16, 4}, {513, 5, 1}};

enum class Load : uint8_t { spread, hole, collapsed };

/// Router logits (N, E) with many exact ties, or a hole (expert 1 gets no token), or all tokens on one expert.
std::vector<float> make_logits(const Shape& shape, Load load, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> logits;
  for (int64_t i = 0; i < shape.n * shape.experts; ++i) {
    float value = static_cast<float>(static_cast<int>(random() % 17) - 8) / 4.0f;
    if (load == Load::hole && i % shape.experts == 1) value = -20.0f;
    if (load == Load::collapsed && i % shape.experts == shape.experts - 1) value += 20.0f;
    logits.push_back(value);
  }
  return logits;
}

std::vector<uint8_t> make_valid(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> valid;
  for (int64_t t = 0; t < n; ++t) valid.push_back(random() % 4 != 0);
  return valid;
}

std::vector<double> softmax(const std::vector<double>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> out;
  double sum = 0.0;
  for (const double value : logits) out.push_back(std::exp(value - largest)), sum += out.back();
  for (double& value : out) value /= sum;
  return out;
}

std::vector<double> row_of(const std::vector<float>& values, int64_t row, int64_t width) {
  return {values.begin() + row * width, values.begin() + (row + 1) * width};
}

/// All that dispatch computes of one set of logits.
struct Dispatched {
  std::vector<int32_t> chosen, offsets, source, inverse;
  std::vector<float> weights;
  int64_t rows = 0;

  Dispatched(const Exec& exec, const Shape& s, const std::vector<float>& logits, const uint8_t* valid)
      : chosen(static_cast<size_t>(s.n * s.top_k)),
        offsets(static_cast<size_t>(s.experts + 1), -5),
        source(chosen.size(), -5),
        inverse(chosen.size(), -5),
        weights(chosen.size()) {
    router_topk_forward(exec, chosen.data(), weights.data(), logits.data(), s.n, s.experts, s.top_k);
    moe_sort(exec, offsets.data(), source.data(), chosen.data(), valid, s.n, s.experts, s.top_k);
    rows = offsets.back();
    moe_invert(exec, inverse.data(), source.data(), rows, s.n, s.top_k);
  }
};

/// Calls body(shape, logits, valid or null, what) for every shape, load and padding.
template <typename Body>
void for_cases(Body body) {
  int count = 0;
  for (const Shape& shape : shapes) {
    for (const Load load : {Load::spread, Load::hole, Load::collapsed}) {
      for (const bool padded : {false, true}) {
        const std::vector<float> logits = make_logits(shape, load, static_cast<uint32_t>(shape.n));
        const std::vector<uint8_t> valid = make_valid(shape.n, 3);
        const std::string what = std::to_string(shape.n) + " tokens, " + std::to_string(shape.experts) +
                                 " experts, top " + std::to_string(shape.top_k) + ", load " +
                                 std::to_string(static_cast<int>(load)) + (padded ? ", padded" : "");
        INFO(what);
        body(shape, logits, padded ? valid.data() : nullptr, what);
        ++count;
      }
    }
  }
  CHECK(count == 36);
}

}  // namespace

TEST_CASE("the K largest in descending order, the lower expert first on ties, weights their softmax") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  int64_t ties = 0;
  for_cases([&](const Shape& s, const std::vector<float>& logits, const uint8_t* valid, const std::string&) {
    const Dispatched d(exec, s, logits, valid);
    for (int64_t t = 0; t < s.n; ++t) {
      const std::vector<double> row = row_of(logits, t, s.experts);
      std::vector<int32_t> order(row.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t a, int32_t b) { return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)]; });
      std::vector<double> best;
      for (int64_t k = 0; k < s.top_k; ++k) best.push_back(row[static_cast<size_t>(order[static_cast<size_t>(k)])]);
      if (s.top_k > 1) ties += best[0] == best[1];
      const std::vector<double> expected = softmax(best);
      for (int64_t k = 0; k < s.top_k; ++k) {
        const size_t a = static_cast<size_t>(t * s.top_k + k);
        REQUIRE(d.chosen[a] == order[static_cast<size_t>(k)]);
        REQUIRE(std::fabs(d.weights[a] - expected[static_cast<size_t>(k)]) <= 3e-7);
      }
    }
  });
  CHECK(ties > 50);
}

TEST_CASE("the weights' gradient in the logits is that of the softmax over the chosen, and zero elsewhere") {
  for_cases([&](const Shape& s, const std::vector<float>& logits, const uint8_t*, const std::string& what) {
    const Dispatched d({}, s, logits, nullptr);
    const TypedArray dweights(DType::f32, s.n * s.top_k, 4);
    TypedArray dlogits(DType::f32, s.n * s.experts, 5);  // what is there before must not stay
    router_topk_backward({}, dlogits.floats(), dweights.floats(), d.chosen.data(), d.weights.data(), s.n, s.experts,
                         s.top_k);
    std::vector<double> expected(static_cast<size_t>(s.n * s.experts), 0.0);
    const double h = 1e-5;
    for (int64_t t = 0; t < s.n; ++t) {
      for (int64_t k = 0; k < s.top_k; ++k) {
        const auto value = [&](double shift) {
          std::vector<double> chosen;
          for (int64_t j = 0; j < s.top_k; ++j) {
            const int32_t e = d.chosen[static_cast<size_t>(t * s.top_k + j)];
            chosen.push_back(logits[static_cast<size_t>(t * s.experts + e)] + (j == k ? shift : 0.0));
          }
          const std::vector<double> w = softmax(chosen);
          double sum = 0.0;
          for (int64_t j = 0; j < s.top_k; ++j) sum += w[static_cast<size_t>(j)] * dweights[t * s.top_k + j];
          return sum;
        };
        const int32_t e = d.chosen[static_cast<size_t>(t * s.top_k + k)];
        expected[static_cast<size_t>(t * s.experts + e)] = (value(h) - value(-h)) / (2.0 * h);
      }
    }
    check_elements(
        what, s.n * s.experts, [&](int64_t i) { return dlogits[i]; },
        [&](int64_t i) { return expected[static_cast<size_t>(i)]; }, [](double) { return 2e-6; });
    for (int64_t i = 0; i < s.n * s.experts; ++i) {
      if (s.top_k == 1) REQUIRE(dlogits[i] == 0.0f);  // the one weight is 1 whatever its logit
    }
  });
}

TEST_CASE(
    "dispatch: each expert's rows are its tokens in order, padding goes nowhere, and the inverse finds each row") {
  bool saw_empty = false, saw_all_on_one = false;
  for_cases([&](const Shape& s, const std::vector<float>& logits, const uint8_t* valid, const std::string&) {
    const Dispatched d({}, s, logits, valid);
    std::vector<int32_t> expected, bounds = {0};
    for (int64_t e = 0; e < s.experts; ++e) {
      for (int64_t a = 0; a < s.n * s.top_k; ++a) {
        if (valid != nullptr && valid[a / s.top_k] == 0) continue;
        if (d.chosen[static_cast<size_t>(a)] == e) expected.push_back(static_cast<int32_t>(a));
      }
      bounds.push_back(static_cast<int32_t>(expected.size()));
      saw_empty = saw_empty || bounds[static_cast<size_t>(e)] == bounds.back();
    }
    saw_all_on_one = saw_all_on_one ||
                     (s.top_k == 1 && s.experts > 1 && s.n > 10 && bounds[static_cast<size_t>(s.experts - 1)] == 0);
    REQUIRE(d.offsets == bounds);
    REQUIRE(std::vector<int32_t>(d.source.begin(), d.source.begin() + d.rows) == expected);
    for (int64_t a = 0; a < s.n * s.top_k; ++a) {
      const int32_t row = d.inverse[static_cast<size_t>(a)];
      if (valid != nullptr && valid[a / s.top_k] == 0) {
        REQUIRE(row == -1);
      } else {
        REQUIRE(d.source[static_cast<size_t>(row)] == a);
      }
    }
  });
  CHECK(saw_empty);
  CHECK(saw_all_on_one);
}

TEST_CASE("gather and combine, forward and backward, equal their sums for every element and type") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  constexpr float scale = 0.25f;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int64_t c : {1, 17, 40}) {
      for_cases([&](const Shape& s, const std::vector<float>& logits, const uint8_t* valid, const std::string& what) {
        const Dispatched d(exec, s, logits, valid);
        const int64_t m = d.rows;
        const TypedArray x(dtype, s.n * c, 1), y0(dtype, s.n * c, 2), out(dtype, m * c, 3), dy(dtype, s.n * c, 4);

        TypedArray gathered(dtype, m * c);
        moe_gather(exec, gathered.ptr(), x.ptr(), d.source.data(), nullptr, 1.0f, m, c, s.top_k);
        check_elements(
            what + " gather", m * c, [&](int64_t i) { return gathered[i]; },
            [&](int64_t i) { return x[d.source[static_cast<size_t>(i / c)] / s.top_k * c + i % c]; },
            [](double) { return 0.0; });

        // Any mask will do; two tokens in three keep a channel.
        std::vector<uint32_t> bits(static_cast<size_t>(s.n * kept_words(c)));
        for (size_t i = 0; i < bits.size(); ++i) bits[i] = 0x5b6db6dbu >> i % 5;
        const auto kept = [&](int64_t t, int64_t channel) {
          return (bits[static_cast<size_t>(t * kept_words(c) + channel / 32)] >> kept_bit(channel) & 1) != 0;
        };
        constexpr float keep_scale = 1.25f;
        moe_gather(exec, gathered.ptr(), x.ptr(), d.source.data(), bits.data(), keep_scale, m, c, s.top_k);
        check_elements(
            what + " masked gather", m * c, [&](int64_t i) { return gathered[i]; },
            [&](int64_t i) {
              const int64_t t = d.source[static_cast<size_t>(i / c)] / s.top_k;
              return kept(t, i % c) ? double{keep_scale} * x[t * c + i % c] : 0.0;
            },
            rounding_limit(dtype));
        for (const bool masked : {false, true}) {
          TypedArray dx(dtype, s.n * c);
          moe_gather_backward(exec, dx.ptr(), dy.ptr(), out.ptr(), d.inverse.data(), masked ? bits.data() : nullptr,
                              keep_scale, s.n, c, s.top_k);
          check_elements(
              what + " gather backward", s.n * c, [&](int64_t i) { return dx[i]; },
              [&](int64_t i) {
                double sum = 0.0;
                for (int64_t k = 0; k < s.top_k; ++k) {
                  const int32_t row = d.inverse[static_cast<size_t>(i / c * s.top_k + k)];
                  if (row >= 0) sum += out[row * c + i % c];
                }
                if (!masked) return dy[i] + sum;
                if (!kept(i / c, i % c)) return double{dy[i]};
                return dy[i] + double{keep_scale} * cpu::round_to(dtype, static_cast<float>(sum));
              },
              // The inner sum may round to a neighbour.
              [&](double expected) {
                return rounding_limit(dtype, 4.0)(expected) + (dtype == DType::bf16 && masked ? 0.04 : 0.0);
              });
        }
        TypedArray both(dtype, s.n * c);
        moe_combine_residual(exec, both.ptr(), x.ptr(), dy.ptr(), out.ptr(), d.weights.data(), d.inverse.data(), s.n, c,
                             s.top_k, scale);
        check_elements(
            what + " combine with the residual", s.n * c, [&](int64_t i) { return both[i]; },
            [&](int64_t i) {
              double sum = 0.0;
              for (int64_t k = 0; k < s.top_k; ++k) {
                const size_t a = static_cast<size_t>(i / c * s.top_k + k);
                if (d.inverse[a] >= 0) sum += double{d.weights[a]} * out[d.inverse[a] * c + i % c];
              }
              return cpu::round_to(dtype, x[i] + dy[i]) + scale * sum;
            },
            rounding_limit(dtype, 4.0));

        for (const bool weighted : {true, false}) {
          TypedArray y = y0;
          moe_combine_forward(exec, y.ptr(), out.ptr(), weighted ? d.weights.data() : nullptr, d.inverse.data(), s.n, c,
                              s.top_k, scale);
          check_elements(
              what + " combine", s.n * c, [&](int64_t i) { return y[i]; },
              [&](int64_t i) {
                double sum = 0.0;
                for (int64_t k = 0; k < s.top_k; ++k) {
                  const size_t a = static_cast<size_t>(i / c * s.top_k + k);
                  if (d.inverse[a] < 0) continue;
                  sum += (weighted ? d.weights[a] : 1.0) * out[d.inverse[a] * c + i % c];
                }
                return y0[i] + scale * sum;
              },
              rounding_limit(dtype, 4.0));
        }

        TypedArray dout(dtype, m * c), dweights(DType::f32, s.n * s.top_k, 9);
        moe_combine_backward(exec, dout.ptr(), dweights.floats(), dy.ptr(), out.ptr(), d.weights.data(),
                             d.source.data(), d.inverse.data(), s.n, m, c, s.top_k, scale);
        check_elements(
            what + " dexpert_out", m * c, [&](int64_t i) { return dout[i]; },
            [&](int64_t i) {
              const int32_t a = d.source[static_cast<size_t>(i / c)];
              return static_cast<double>(scale) * d.weights[static_cast<size_t>(a)] * dy[a / s.top_k * c + i % c];
            },
            rounding_limit(dtype));
        check_elements(
            what + " dweights", s.n * s.top_k, [&](int64_t a) { return dweights[a]; },
            [&](int64_t a) {
              const int32_t row = d.inverse[static_cast<size_t>(a)];
              double dot = 0.0;
              for (int64_t j = 0; row >= 0 && j < c; ++j) {
                dot += static_cast<double>(dy[a / s.top_k * c + j]) * out[row * c + j];
              }
              return scale * dot;
            },
            rounding_limit(DType::f32, static_cast<double>(c)));
      });
    }
  }
}

TEST_CASE("the balance loss is E sum F P over valid tokens, its gradient that of P alone") {
  const auto pool = make_thread_pool(3);
  Exec exec;
  exec.pool = pool.get();
  for_cases([&](const Shape& s, const std::vector<float>& logits, const uint8_t* valid, const std::string& what) {
    const Dispatched d({}, s, logits, valid);
    std::vector<int64_t> tokens(static_cast<size_t>(s.experts), -1);
    std::vector<float> probability(tokens.size(), -1.0f);
    float loss = -1.0f;
    balance_loss_forward(exec, &loss, tokens.data(), probability.data(), logits.data(), d.chosen.data(), valid, s.n,
                         s.experts, s.top_k);
    std::vector<double> share(tokens.size(), 0.0), mean(tokens.size(), 0.0);
    double count = 0.0;
    for (int64_t t = 0; t < s.n; ++t) {
      if (valid != nullptr && valid[t] == 0) continue;
      count += 1.0;
      const std::vector<double> p = softmax(row_of(logits, t, s.experts));
      for (size_t e = 0; e < p.size(); ++e) mean[e] += p[e];
      for (int64_t k = 0; k < s.top_k; ++k)
        ++share[static_cast<size_t>(d.chosen[static_cast<size_t>(t * s.top_k + k)])];
    }
    double expected = 0.0;
    for (size_t e = 0; e < share.size(); ++e) {
      CHECK(tokens[e] == static_cast<int64_t>(share[e]));
      if (count > 0.0) {
        share[e] /= count * static_cast<double>(s.top_k);
        mean[e] /= count;
      }
      CHECK(std::fabs(probability[e] - mean[e]) <= 1e-6);
      expected += static_cast<double>(s.experts) * share[e] * mean[e];
    }
    CHECK(std::fabs(loss - expected) <= 2e-6 * std::max(1.0, expected));

    const TypedArray before(DType::f32, s.n * s.experts, 6, 0.01f);
    TypedArray dlogits = before;
    balance_loss_backward(exec, dlogits.floats(), 0.7f, logits.data(), tokens.data(), valid, s.n, s.experts, s.top_k);
    const double h = 1e-4;
    check_elements(
        what, s.n * s.experts, [&](int64_t i) { return dlogits[i]; },
        [&](int64_t i) -> double {
          const int64_t t = i / s.experts;
          if (valid != nullptr && valid[t] == 0) return before[i];
          const auto term = [&](double shift) {
            std::vector<double> row = row_of(logits, t, s.experts);
            row[static_cast<size_t>(i % s.experts)] += shift;
            const std::vector<double> p = softmax(row);
            double sum = 0.0;
            for (size_t e = 0; e < p.size(); ++e) sum += share[e] * p[e];
            return static_cast<double>(s.experts) * sum / count;
          };
          return before[i] + static_cast<double>(0.7f) * (term(h) - term(-h)) / (2.0 * h);
        },
        [](double expected) { return 5e-8 + 2e-6 * std::fabs(expected); });
  });
}

TEST_CASE("a collapsed router costs more than a balanced one and is pushed apart; all padding costs nothing") {
  const int64_t n = 64, e = 4;
  std::vector<float> collapsed(static_cast<size_t>(n * e), 0.0f), balanced(collapsed.size(), 0.0f);
  for (int64_t t = 0; t < n; ++t) {
    collapsed[static_cast<size_t>(t * e + 2)] = 3.0f;
    balanced[static_cast<size_t>(t * e + t % e)] = 3.0f;
  }
  const auto loss_of = [&](const std::vector<float>& logits, std::vector<float>* gradient, const uint8_t* valid) {
    const Dispatched d({}, {n, e, 1}, logits, valid);
    std::vector<int64_t> tokens(static_cast<size_t>(e));
    std::vector<float> p(tokens.size());
    float loss = 0.0f;
    balance_loss_forward({}, &loss, tokens.data(), p.data(), logits.data(), d.chosen.data(), valid, n, e, 1);
    if (gradient != nullptr) {
      gradient->assign(logits.size(), 0.0f);
      balance_loss_backward({}, gradient->data(), 1.0f, logits.data(), tokens.data(), valid, n, e, 1);
    }
    return loss;
  };
  CHECK(loss_of(balanced, nullptr, nullptr) == doctest::Approx(1.0).epsilon(1e-6));
  std::vector<float> gradient;
  CHECK(loss_of(collapsed, &gradient, nullptr) > 3.0f);
  for (int64_t i = 0; i < n * e; ++i) {
    CHECK((i % e == 2 ? gradient[static_cast<size_t>(i)] > 1e-4f : gradient[static_cast<size_t>(i)] < -1e-5f));
  }
  const std::vector<uint8_t> none(static_cast<size_t>(n), 0);
  CHECK(loss_of(collapsed, &gradient, none.data()) == 0.0f);
  CHECK(gradient == std::vector<float>(collapsed.size(), 0.0f));
}
