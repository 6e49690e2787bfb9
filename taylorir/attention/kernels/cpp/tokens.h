// Blocks of tokens: brought from a tensor of any strides and dtype, normalised, and taken back.
//
// Shape legend
//   by token [BLOCK, padded width]   a token's numbers lie side by side, as in a tensor
//   by row   [padded width, BLOCK]   a number of all tokens lies side by side
//   behind the last token and the last number are zeros
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "product.h"

namespace taylorir {

constexpr double EPSILON = 1e-12;  // a vector of no greater norm counts as zero

enum class Kind { float64, float32, bfloat16, float16 };

// The tokens of a head that attend among themselves, [tokens, width]: in the order of an index, or as they lie.
struct Tokens {
  char* data;
  Kind kind;
  int64_t stride, width, count;  // stride in numbers
  const int64_t* order;
  template <typename S>
  S* at(int64_t token) const {
    return reinterpret_cast<S*>(data) + (order ? order[token] : token) * stride;
  }
};

template <typename Use>
inline void by_kind(Kind kind, Use use) {
  switch (kind) {
    case Kind::float64: return use(double());
    case Kind::float32: return use(float());
    case Kind::bfloat16: return use(c10::BFloat16());
    case Kind::float16: return use(c10::Half());
  }
}

// use(first, count, columns) for each block of the tokens begin .. end - 1; columns is count, padded.
template <typename T, typename Use>
inline void by_block(int64_t begin, int64_t end, Use use) {
  for (int64_t first = begin; first < end; first += BLOCK<T>) {
    const int64_t count = std::min<int64_t>(end - first, BLOCK<T>);
    use(first, count, padded<T>(count));
  }
}

// A block by token, in rows of step numbers. What lies behind the last number stays: it was zero.
template <typename T>
inline void gather(const Tokens& x, int64_t first, int64_t count, T* to, int64_t step) {
  by_kind(x.kind, [&](auto kind) {
    using S = decltype(kind);
    for (int64_t t = 0; t < count; ++t) {
      const S* from = x.at<S>(first + t);
      if constexpr (std::is_same_v<S, T>)
        std::memcpy(to + t * step, from, x.width * sizeof(T));
      else
        for (int64_t i = 0; i < x.width; ++i) to[t * step + i] = static_cast<T>(from[i]);
    }
  });
  std::fill_n(to + count * step, (BLOCK<T> - count) * step, T(0));
}

template <typename T>
inline void scatter(const T* from, int64_t step, const Tokens& x, int64_t first, int64_t count) {
  by_kind(x.kind, [&](auto kind) {
    using S = decltype(kind);
    for (int64_t t = 0; t < count; ++t) {
      S* to = x.at<S>(first + t);
      if constexpr (std::is_same_v<S, T>)
        std::memcpy(to, from + t * step, x.width * sizeof(T));
      else
        for (int64_t i = 0; i < x.width; ++i) to[i] = static_cast<S>(from[t * step + i]);
    }
  });
}

// x / |x| of vectors by row, in place, and 1 / |x|; both zero where |x| is not above epsilon.
template <typename T>
inline void normalise(T* __restrict rows, int64_t d, T* __restrict inverse) {
  constexpr int64_t B = BLOCK<T>;
  std::fill_n(inverse, B, T(0));
  for (int64_t i = 0; i < d; ++i)
    for (int64_t t = 0; t < B; t += W<T>) at(inverse + t) += at(rows + i * B + t) * at(rows + i * B + t);
  for (int64_t t = 0; t < B; ++t) {
    const T norm = std::sqrt(inverse[t]);
    inverse[t] = norm > T(EPSILON) ? 1 / norm : T(0);
  }
  for (int64_t i = 0; i < d; ++i)
    for (int64_t t = 0; t < B; t += W<T>) at(rows + i * B + t) *= at(inverse + t);
}

// The gradient of x from that of its unit vector u, in place, both by row: (du - u (u . du)) / |x|. Returns the sum of
// u . du.
template <typename T>
inline T unit_gradient(T* __restrict du, const T* __restrict u, const T* __restrict inverse, int64_t d) {
  constexpr int64_t B = BLOCK<T>;
  T along[B] = {}, total = 0;
  for (int64_t i = 0; i < d; ++i)
    for (int64_t t = 0; t < B; t += W<T>) at(along + t) += at(u + i * B + t) * at(du + i * B + t);
  for (int64_t i = 0; i < d; ++i)
    for (int64_t t = 0; t < B; t += W<T>)
      at(du + i * B + t) = (at(du + i * B + t) - at(u + i * B + t) * at(along + t)) * at(inverse + t);
  for (const T x : along) total += x;
  return total;
}

// A block of vectors and of columns, by token and by row: c columns are d_v of v and one of ones, or the gradients of
// numerators a and normaliser b of y = scale a / b.
template <typename T>
struct Block {
  std::vector<T> tokens, rows, inverse;                   // of a unit vector, behind `before` rows that others fill
  std::vector<T> column_tokens, column_rows, y_rows;      // of columns
  int64_t before;
  Block(int64_t d, int64_t c, int64_t before = 0)
      : tokens(BLOCK<T> * padded<T>(d)), rows((before + padded<T>(d)) * BLOCK<T>), inverse(BLOCK<T>),
        column_tokens(BLOCK<T> * padded<T>(c)), column_rows(column_tokens), y_rows(column_tokens), before(before) {}

  T* units() { return rows.data() + before * BLOCK<T>; }

  void load_units(const Tokens& x, int64_t first, int64_t count) {
    gather(x, first, count, tokens.data(), padded<T>(x.width));
    transpose(tokens.data(), padded<T>(x.width), BLOCK<T>, padded<T>(x.width), units(), BLOCK<T>);
    normalise(units(), x.width, inverse.data());
  }

  void columns_to_rows(int64_t c) {
    transpose(column_tokens.data(), padded<T>(c), BLOCK<T>, padded<T>(c), column_rows.data(), BLOCK<T>);
  }
  void columns_to_tokens(int64_t c) {
    transpose(column_rows.data(), BLOCK<T>, padded<T>(c), BLOCK<T>, column_tokens.data(), padded<T>(c));
  }

  // (v, 1), by token.
  void load_values(const Tokens& v, int64_t first, int64_t count) {
    const int64_t step = padded<T>(v.width + 1);
    gather(v, first, count, column_tokens.data(), step);
    for (int64_t t = 0; t < count; ++t) column_tokens[t * step + v.width] = 1;
  }

  // The gradients of a and b, by token and by row; inverse is 1 / b.
  void load_gradient(const Tokens& dy, const Tokens& y, const Tokens& inverse_b, T scale, int64_t first, int64_t count) {
    constexpr int64_t B = BLOCK<T>;
    const int64_t c = dy.width + 1, C = padded<T>(c);
    gather(y, first, count, column_tokens.data(), C);
    transpose(column_tokens.data(), C, B, C, y_rows.data(), B);
    gather(dy, first, count, column_tokens.data(), C);
    for (int64_t t = 0; t < B; ++t) column_tokens[t * C + dy.width] = 0;
    columns_to_rows(c);
    T factor[B] = {}, along[B] = {};
    for (int64_t t = 0; t < count; ++t) factor[t] = *inverse_b.at<T>(first + t);
    for (int64_t i = 0; i < dy.width; ++i)
      for (int64_t t = 0; t < B; t += W<T>) {
        vec<T>& da = at(&column_rows[i * B + t]);
        at(along + t) += da * at(&y_rows[i * B + t]);
        da *= at(factor + t) * scale;
      }
    for (int64_t t = 0; t < B; t += W<T>) at(&column_rows[dy.width * B + t]) = -at(along + t) * at(factor + t);
    columns_to_tokens(c);
  }

  // y, and 1 / b into inverse_b, from (a, b) by row; a query without keys gets 0.
  void store_output(const Tokens& y, const Tokens& inverse_b, T scale, int64_t first, int64_t count) {
    constexpr int64_t B = BLOCK<T>;
    T* b = &column_rows[y.width * B];
    for (int64_t t = 0; t < B; ++t) b[t] = b[t] > 0 ? 1 / b[t] : T(0);
    for (int64_t t = 0; t < count; ++t) *inverse_b.at<T>(first + t) = b[t];
    for (int64_t i = 0; i < y.width; ++i)
      for (int64_t t = 0; t < B; t += W<T>) at(&column_rows[i * B + t]) *= at(b + t) * scale;
    store_columns(y, first, count, y.width + 1);
  }

  // Columns kept by row, of which x takes the first.
  void store_columns(const Tokens& x, int64_t first, int64_t count, int64_t c) {
    columns_to_tokens(c);
    scatter(column_tokens.data(), padded<T>(c), x, first, count);
  }

  // The gradient of x from that of its unit vector, by row; returns the sum of u . du.
  T store_gradient(T* du, const Tokens& dx, int64_t first, int64_t count, T factor = 1) {
    const int64_t D = padded<T>(dx.width);
    const T along = unit_gradient(du, units(), inverse.data(), dx.width);
    if (factor != 1)
      for (int64_t i = 0; i < dx.width * BLOCK<T>; ++i) du[i] *= factor;
    transpose(du, BLOCK<T>, D, BLOCK<T>, tokens.data(), D);
    scatter(tokens.data(), D, dx, first, count);
    return along;
  }
};

}  // namespace taylorir
