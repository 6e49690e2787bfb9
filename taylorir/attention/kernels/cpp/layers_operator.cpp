// taylorir_cpp::layers: what a block of a transformer does to each token alone, a block of tokens at a time:
//
//   y = residual + A2 gelu(A1 norm(x) + b1) + b2,
//
// where the norm, the second layer with its GELU, and the residual may be missing. Tokens are [tokens, width], weights
// [out, in], all of float32. What lies between x and y stays in the processor's cache.
#include <torch/library.h>

#include "plan.h"
#include "softmax.h"

namespace taylorir {
namespace {

constexpr int64_t B = BLOCK<float>;  // tokens of a block

constexpr int PANEL = std::min(MAX_ROWS, ACCUMULATORS / TOKEN_VECTORS);  // outputs that are summed up at once

// x Phi(x), where Phi(-|x|) is by formula 7.1.26 of Abramowitz and Stegun, which is right to 7.5e-8.
inline vec<float> gelu(vec<float> x) {
  const vec<float> minus = x > 0.f ? -x : x;
  const vec<float> t = 1.f / (1.f - minus * (0.3275911f * 0.70710678f));
  vec<float> sum = t * 1.061405429f - 1.453152027f;
  sum = sum * t + 1.421413741f;
  sum = sum * t - 0.284496736f;
  sum = (sum * t + 0.254829592f) * t;
  const vec<float> below = 0.5f * sum * exponential<float>(minus * minus * -0.5f);
  return x * (x > 0.f ? 1.f - below : below);
}

// A linear layer. Its weights lie in panels of a few outputs, [in, outputs], in the order in which they are read.
struct Layer {
  int64_t in, out;
  Numbers<float> panels;
  Tensor bias;

  Layer(const Tensor& weight, const Tensor& bias)
      : in(weight.size(1)), out(weight.size(0)), panels(in * out), bias(bias.contiguous()) {
    const Tensor rows = weight.contiguous();
    const float* from = rows.data_ptr<float>();
    for (int64_t m = 0; m < out; m += PANEL) {
      const int64_t number = std::min<int64_t>(out - m, PANEL);
      for (int64_t k = 0; k < in; ++k)
        for (int64_t i = 0; i < number; ++i) panels[m * in + k * number + i] = from[(m + i) * in + k];
    }
  }

  // y = A x + b of tokens by row, or with ADD that more, or gelu of it
  template <bool ADD, bool GELU = false>
  void apply(const float* x, int64_t columns, float* y) const {
    const float* b = bias.data_ptr<float>();
    as_constant<TOKEN_VECTORS>(columns / W<float>, [&](auto V) {
      for (int64_t m = 0; m < out; m += PANEL)
        as_constant<PANEL>(std::min<int64_t>(out - m, PANEL), [&](auto number) {
          product_tile<ADD, 1, V, number>(in, &panels[m * in], number, x, B, y + m * B, B);
          for (int i = 0; i < number; ++i)
            for (int v = 0; v < V; ++v) {
              vec<float>& sum = at(y + (m + i) * B + v * W<float>);
              sum = GELU ? gelu(sum + b[m + i]) : sum + b[m + i];
            }
        });
    });
  }
};

// (x - mean) / deviation of each token, then weight and bias, by row and in place.
void normalise_layer(float* rows, int64_t width, int64_t columns, float epsilon, const float* weight,
                     const float* bias) {
  alignas(VECTOR_BYTES) float mean[B] = {}, factor[B] = {};
  for (int64_t t = 0; t < columns; t += W<float>) {
    vec<float> sum{}, square{};
    for (int64_t i = 0; i < width; ++i) sum += at(rows + i * B + t);
    const vec<float> middle = sum / float(width);
    for (int64_t i = 0; i < width; ++i) {
      const vec<float> from_mean = at(rows + i * B + t) - middle;
      square += from_mean * from_mean;
    }
    at(mean + t) = middle;
    at(factor + t) = square / float(width) + epsilon;
  }
  for (int64_t t = 0; t < columns; ++t) factor[t] = 1 / std::sqrt(factor[t]);
  for (int64_t i = 0; i < width; ++i)
    for (int64_t t = 0; t < columns; t += W<float>) {
      vec<float>& x = at(rows + i * B + t);
      x = (x - at(mean + t)) * at(factor + t) * weight[i] + bias[i];
    }
}

Tokens rows_of(const Tensor& x) {
  return {static_cast<char*>(x.data_ptr()), Kind::float32, x.size(1), x.size(1), x.size(0), nullptr};
}

void layers(const Tensor& x, const std::optional<Tensor>& norm_weight, const std::optional<Tensor>& norm_bias,
            double epsilon, const Tensor& weight, const Tensor& bias, const std::optional<Tensor>& weight_2,
            const std::optional<Tensor>& bias_2, const std::optional<Tensor>& residual, const Tensor& y) {
  const Layer first(weight, bias);
  const std::optional<Layer> second = weight_2 ? std::optional<Layer>(std::in_place, *weight_2, *bias_2) : std::nullopt;
  const Layer& last = second ? *second : first;
  const Tensor given = x.contiguous(), scale = norm_weight ? norm_weight->contiguous() : Tensor(),
               shift = norm_bias ? norm_bias->contiguous() : Tensor(), added = residual ? residual->contiguous() : Tensor();
  const Tokens from = rows_of(given), to = rows_of(y), more = residual ? rows_of(added) : Tokens{};
  at::parallel_for(0, (from.count + B - 1) / B, 1, [&](int64_t begin, int64_t end) {
    Numbers<float> rows(first.in * B), hidden(second ? first.out * B : 0), out(last.out * B);
    by_block<float, B>(begin * B, std::min(end * B, from.count), [&](int64_t start, int64_t count, int64_t columns) {
      load_rows(from, start, count, rows.data(), B);
      if (norm_weight)
        normalise_layer(rows.data(), from.width, columns, epsilon, scale.data_ptr<float>(), shift.data_ptr<float>());
      if (second) first.apply<false, true>(rows.data(), columns, hidden.data());
      const float* x = second ? hidden.data() : rows.data();
      if (residual) {
        load_rows(more, start, count, out.data(), B);
        last.apply<true>(x, columns, out.data());
      } else {
        last.apply<false>(x, columns, out.data());
      }
      store_rows(out.data(), B, to, start, count);
    });
  });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(taylorir_cpp, m) {
  m.def(
      "layers(Tensor x, Tensor? norm_weight, Tensor? norm_bias, float epsilon, Tensor weight, Tensor bias, "
      "Tensor? weight_2, Tensor? bias_2, Tensor? residual, Tensor(a!) y) -> ()");
}

TORCH_LIBRARY_IMPL(taylorir_cpp, CPU, m) { m.impl("layers", layers); }

}  // namespace taylorir
