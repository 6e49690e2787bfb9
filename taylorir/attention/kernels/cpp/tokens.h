// Blocks of tokens: brought from a tensor of any strides and dtype, normalised, and taken back.
//
// Shape legend
//   B                            tokens of a block, at most
//   by token [B, padded width]   a token's numbers lie side by side, as in a tensor
//   by row   [width, B]          a number of all tokens lies side by side; behind the last token are zeros, as far as
//                                a register reaches
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cmath>
#include <type_traits>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "product.h"

namespace taylorir {

constexpr double EPSILON = 1e-12;  // a vector of no greater norm counts as zero

enum class Kind { float64, float32, bfloat16, float16 };

inline void bring_near(const char* from) {
#if defined(__x86_64__)
  asm volatile("prefetcht0 %0" : : "m"(*from));
#elif defined(__aarch64__)
  asm volatile("prfm pldl1keep, %0" : : "Q"(*from));
#endif
}

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
  // Bring tokens near before they are asked for. (A call that only has a builtin for it is left out by GCC.)
  void prefetch(int64_t begin, int64_t end) const {
    const int64_t bytes = kind == Kind::float64 ? 8 : kind == Kind::float32 ? 4 : 2;
    for (int64_t token = begin; token < std::min(end, count); ++token) {
      const char* from = data + (order ? order[token] : token) * stride * bytes;
      for (int64_t i = 0; i < width * bytes + 63; i += 64) bring_near(from + std::min(i, width * bytes - 1));
    }
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
template <typename T, int64_t B, typename Use>
inline void by_block(int64_t begin, int64_t end, Use use) {
  for (int64_t first = begin; first < end; first += B) {
    const int64_t count = std::min<int64_t>(end - first, B);
    use(first, count, padded<T>(count));
  }
}

// The first numbers from an address in a register, zeros behind them; as many as there are, or all that it holds.
template <typename T, typename S>
inline vec<T> load_part(const S* from, int64_t number) {
#if defined(__AVX512F__)
  const unsigned mask = number < W<T> ? (1u << number) - 1 : ~0u;
  if constexpr (std::is_same_v<S, T> && sizeof(T) == 4) return (vec<T>)_mm512_maskz_loadu_ps(mask, from);
  if constexpr (std::is_same_v<S, T> && sizeof(T) == 8) return (vec<T>)_mm512_maskz_loadu_pd(mask, from);
#endif
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  if constexpr (std::is_same_v<S, c10::BFloat16> && sizeof(T) == 4)  // the upper half of a float32
    return (vec<T>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16);
#endif
  alignas(VECTOR_BYTES) T numbers[W<T>] = {};
  for (int64_t i = 0; i < std::min<int64_t>(number, W<T>); ++i) numbers[i] = static_cast<T>(from[i]);
  return at(numbers);
}

template <typename T, typename S>
inline void store_part(vec<T> x, S* to, int64_t number) {
#if defined(__AVX512F__)
  const unsigned mask = number < W<T> ? (1u << number) - 1 : ~0u;
  if constexpr (std::is_same_v<S, T> && sizeof(T) == 4) return _mm512_mask_storeu_ps(to, mask, (__m512)x);
  if constexpr (std::is_same_v<S, T> && sizeof(T) == 8) return _mm512_mask_storeu_pd(to, mask, (__m512d)x);
#endif
#if defined(__AVX512BF16__) && defined(__AVX512VL__)
  if constexpr (std::is_same_v<S, c10::BFloat16> && sizeof(T) == 4)
    return _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh((__m512)x));
#endif
  alignas(VECTOR_BYTES) T numbers[W<T>];
  at(numbers) = x;
  for (int64_t i = 0; i < std::min<int64_t>(number, W<T>); ++i) to[i] = static_cast<S>(numbers[i]);
}

// Tokens by token, in rows of step numbers. What lies behind the last number of a token stays: it was zero.
template <typename T>
inline void load_tokens(const Tokens& x, int64_t first, int64_t count, T* to, int64_t step) {
  by_kind(x.kind, [&](auto kind) {
    using S = decltype(kind);
    for (int64_t t = 0; t < count; ++t)
      for (int64_t i = 0; i < x.width; i += W<T>)
        store_part<T>(load_part<T>(x.at<S>(first + t) + i, x.width - i), to + t * step + i, x.width - i);
  });
}

template <typename T>
inline void store_tokens(const T* from, int64_t step, const Tokens& x, int64_t first, int64_t count) {
  by_kind(x.kind, [&](auto kind) {
    using S = decltype(kind);
    for (int64_t t = 0; t < count; ++t)
      for (int64_t i = 0; i < x.width; i += W<T>)
        store_part<T>(load_part<T>(from + t * step + i, x.width - i), x.at<S>(first + t) + i, x.width - i);
  });
}

// use(addresses of W tokens, how many of them there are, the first one's number) for all tokens
template <typename T, typename S, typename Use>
inline void by_register(const Tokens& x, int64_t first, int64_t count, Use use) {
  for (int64_t t = 0; t < count; t += W<T>) {
    const int64_t tokens = std::min<int64_t>(count - t, W<T>);
    S* places[W<T>];
    for (int64_t u = 0; u < W<T>; ++u) places[u] = x.at<S>(first + t + std::min(u, tokens - 1));
    use(places, tokens, t);
  }
}

template <typename T, typename S>
TILE void load_rows(const Tokens& x, int64_t first, int64_t count, T* rows, int64_t B) {
  by_register<T, const S>(x, first, count, [&](const S* const* from, int64_t tokens, int64_t t) {
    for (int64_t i = 0; i < x.width; i += W<T>) {
      const int64_t width = std::min<int64_t>(x.width - i, W<T>);
      vec<T> tile[W<T>];
#pragma GCC unroll 16
      for (int64_t u = 0; u < W<T>; ++u) tile[u] = load_part<T>(from[u] + i, u < tokens ? width : 0);
      exchange_all<1, T>(tile);
#pragma GCC unroll 16
      for (int64_t u = 0; u < W<T>; ++u)
        if (u < width) at(rows + (i + u) * B + t) = tile[u];
    }
  });
}

template <typename T, typename S>
TILE void store_rows(const T* rows, int64_t B, const Tokens& x, int64_t first, int64_t count) {
  by_register<T, S>(x, first, count, [&](S* const* to, int64_t tokens, int64_t t) {
    for (int64_t i = 0; i < x.width; i += W<T>) {
      const int64_t width = std::min<int64_t>(x.width - i, W<T>);
      vec<T> tile[W<T>];
#pragma GCC unroll 16
      for (int64_t u = 0; u < W<T>; ++u) tile[u] = at(rows + (i + std::min(u, width - 1)) * B + t);
      exchange_all<1, T>(tile);
#pragma GCC unroll 16
      for (int64_t u = 0; u < W<T>; ++u)
        if (u < tokens) store_part<T>(tile[u], to[u] + i, width);
    }
  });
}

// Tokens by row, B numbers from one to the next; behind the last token zeros, as far as a register holds them.
template <typename T>
inline void load_rows(const Tokens& x, int64_t first, int64_t count, T* rows, int64_t B) {
  by_kind(x.kind, [&](auto kind) { load_rows<T, decltype(kind)>(x, first, count, rows, B); });
}
template <typename T>
inline void store_rows(const T* rows, int64_t B, const Tokens& x, int64_t first, int64_t count) {
  by_kind(x.kind, [&](auto kind) { store_rows<T, decltype(kind)>(rows, B, x, first, count); });
}

// x / |x| of vectors by row, in place, and 1 / |x|; both zero where |x| is not above epsilon.
template <typename T, int64_t B>
inline void normalise(T* rows, int64_t d, int64_t columns, T* inverse) {
  for (int64_t t = 0; t < columns; t += W<T>) {
    vec<T> square{};
    for (int64_t i = 0; i < d; ++i) square += at(rows + i * B + t) * at(rows + i * B + t);
    at(inverse + t) = square;
  }
  for (int64_t t = 0; t < columns; ++t) {
    const T norm = std::sqrt(inverse[t]);
    inverse[t] = norm > T(EPSILON) ? 1 / norm : T(0);
  }
  for (int64_t t = 0; t < columns; t += W<T>)
    for (int64_t i = 0; i < d; ++i) at(rows + i * B + t) *= at(inverse + t);
}

// The gradient of x from that of its unit vector u, in place, both by row: factor (du - u (u . du)) / |x|. Returns the
// sum of u . du.
template <typename T, int64_t B>
inline T unit_gradient(T* du, const T* u, const T* inverse, int64_t d, int64_t columns, T factor) {
  vec<T> sum{};
  for (int64_t t = 0; t < columns; t += W<T>) {
    vec<T> along{};
    for (int64_t i = 0; i < d; ++i) along += at(u + i * B + t) * at(du + i * B + t);
    for (int64_t i = 0; i < d; ++i)
      at(du + i * B + t) = (at(du + i * B + t) - at(u + i * B + t) * along) * (at(inverse + t) * factor);
    sum += along;
  }
  T total = 0;
  for (int64_t t = 0; t < W<T>; ++t) total += sum[t];
  return total;
}

// A block of vectors by row, and of columns by token and by row: c columns are d_v of v and one of ones, or the
// gradients of numerators a and normaliser b of y = scale a / b.
template <typename T, int64_t B>
struct Block {
  Numbers<T> rows, inverse;                       // of a unit vector, behind `before` rows that others fill
  Numbers<T> column_tokens, column_rows, y_rows;  // of columns
  int64_t before;
  Block(int64_t d, int64_t c, int64_t before = 0)
      : rows((before + d) * B), inverse(B), column_tokens(B * padded<T>(c)), column_rows(column_tokens),
        y_rows(column_tokens), before(before) {}

  T* units() { return rows.data() + before * B; }

  void load_units(const Tokens& x, int64_t first, int64_t count) {
    load_rows(x, first, count, units(), B);
    normalise<T, B>(units(), x.width, padded<T>(count), inverse.data());
  }

  void columns_to_tokens(int64_t c) {
    transpose(column_rows.data(), B, padded<T>(c), B, column_tokens.data(), padded<T>(c));
  }

  // (v, 1), by token or by row; nothing behind the last token.
  void load_value_tokens(const Tokens& v, int64_t first, int64_t count) {
    const int64_t step = padded<T>(v.width + 1);
    load_tokens(v, first, count, column_tokens.data(), step);
    for (int64_t t = 0; t < count; ++t) column_tokens[t * step + v.width] = 1;
  }
  void load_value_rows(const Tokens& v, int64_t first, int64_t count) {
    load_rows(v, first, count, column_rows.data(), B);
    for (int64_t t = 0; t < padded<T>(count); ++t) column_rows[v.width * B + t] = t < count;
  }

  // The gradients of a and b, by row; inverse is 1 / b.
  void load_gradient(const Tokens& dy, const Tokens& y, const Tokens& inverse_b, T scale, int64_t first,
                     int64_t count) {
    load_rows(y, first, count, y_rows.data(), B);
    load_rows(dy, first, count, column_rows.data(), B);
    alignas(VECTOR_BYTES) T factor[B];
    for (int64_t t = 0; t < padded<T>(count); ++t) factor[t] = t < count ? *inverse_b.at<T>(first + t) : T(0);
    for (int64_t t = 0; t < count; t += W<T>) {
      vec<T> along{};
      for (int64_t i = 0; i < dy.width; ++i) {
        vec<T>& da = at(&column_rows[i * B + t]);
        along += da * at(&y_rows[i * B + t]);
        da *= at(factor + t) * scale;
      }
      at(&column_rows[dy.width * B + t]) = -along * at(factor + t);
    }
  }

  // y, and 1 / b into inverse_b, from (a, b) by row; a query without keys gets 0.
  void store_output(const Tokens& y, const Tokens& inverse_b, T scale, int64_t first, int64_t count) {
    T* b = &column_rows[y.width * B];
    for (int64_t t = 0; t < padded<T>(count); ++t) b[t] = b[t] > 0 ? 1 / b[t] : T(0);
    for (int64_t t = 0; t < count; ++t) *inverse_b.at<T>(first + t) = b[t];
    for (int64_t t = 0; t < count; t += W<T>)
      for (int64_t i = 0; i < y.width; ++i) at(&column_rows[i * B + t]) *= at(b + t) * scale;
    store_rows(column_rows.data(), B, y, first, count);
  }

  // The gradient of x from that of its unit vector, by row; returns the sum of u . du.
  T store_gradient(T* du, const Tokens& dx, int64_t first, int64_t count, T factor = 1) {
    const T along = unit_gradient<T, B>(du, units(), inverse.data(), dx.width, padded<T>(count), factor);
    store_rows(du, B, dx, first, count);
    return along;
  }
};

}  // namespace taylorir
