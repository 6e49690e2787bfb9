// Features of tokens, and what is done with them in registers: summed into a state, read, pulled back.
//
// Shape legend
//   d, c     width of q and k; columns: d_v of v and one of ones, so that numerators and normaliser are one product
//   rows     r = (1, u) of a unit vector u: n = d + 1 of them
//   F        features n (n + 1) / 2: the products r_i r_j, i <= j, in the order (0, 0), (0, 1), .., (1, 1), ..
//   B        tokens from a row to the next
#pragma once

#include "product.h"

namespace taylorir {

constexpr int MOST_COLUMNS = ACCUMULATORS / 2;  // of a tile of two registers of tokens, or of two features

struct Features {
  // Features are made in chunks of whole i, and used while they are in the first cache.
  static constexpr int64_t CHUNK = 48;
  static constexpr int64_t SUMMED = 100;  // features summed at once where they are not made in chunks
  int64_t n, count, most = 0;      // rows, features, features of the largest chunk
  std::vector<int64_t> starts{0};  // i at which each chunk begins, and n
  std::vector<std::pair<int64_t, int64_t>> factors;  // (i, j) of each feature; one more, for an even number

  explicit Features(int64_t d) : n(d + 1), count((d + 1) * (d + 2) / 2) {
    for (int64_t i = 0, size = 0; i < n; ++i) {
      if (size && size + n - i > CHUNK) starts.push_back(i), size = 0;
      size += n - i;
      most = std::max(most, size);
      for (int64_t j = i; j < n; ++j) factors.push_back({i, j});
    }
    starts.push_back(n);
    factors.push_back(factors.back());
  }

  int64_t first(int64_t i) const { return i * n - i * (i - 1) / 2; }

  // use(i0, i1, first feature, number of features) for each chunk
  template <typename Use>
  void by_chunk(Use use) const {
    for (size_t chunk = 0; chunk + 1 < starts.size(); ++chunk) {
      const int64_t i0 = starts[chunk], i1 = starts[chunk + 1];
      use(i0, i1, first(i0), first(i1) - first(i0));
    }
  }

  // use(f, weight, derivative of the weight): what f(k) f(q) counts in 1 + x + x^2 / 2 for x = tau u . w
  template <typename T, typename Use>
  void weigh(T tau, Use use) const {
    for (int64_t i = 0, f = 0; i < n; ++i)
      for (int64_t j = i; j < n; ++j, ++f) {
        if (j == 0) use(f, T(1), T(0));
        else if (i == 0) use(f, tau, T(1));
        else if (i == j) use(f, tau * tau / 2, tau);
        else use(f, tau * tau, 2 * tau);
      }
  }

  // weighted [F, c], a state whose features are weighed
  template <typename T>
  void weigh_state(const T* state, T tau, int64_t c, T* weighted) const {
    weigh(tau, [&](int64_t f, T weight, T) {
      for (int64_t j = 0; j < c; ++j) weighted[f * c + j] = weight * state[f * c + j];
    });
  }

  // Features of i0 <= i < i1, by row.
  template <int64_t B, typename T>
  void make(int64_t i0, int64_t i1, int64_t columns, const T* __restrict rows, T* __restrict features) const {
    for (int64_t i = i0; i < i1; features += (n - i++) * B)
      for (int64_t t = 0; t < columns; t += W<T>) {
        const vec<T> r = at(rows + i * B + t);
        for (int64_t j = i; j < n; ++j) at(features + (j - i) * B + t) = r * at(rows + j * B + t);
      }
  }

  // Add to the gradient of rows that of their features i0 <= i < i1.
  template <int64_t B, typename T>
  void add_gradient(int64_t i0, int64_t i1, int64_t columns, const T* __restrict dfeatures, const T* __restrict rows,
                    T* __restrict drows) const {
    for (int64_t i = i0; i < i1; dfeatures += (n - i++) * B)
      for (int64_t t = 0; t < columns; t += W<T>) {
        const vec<T> r = at(rows + i * B + t);
        vec<T> sum = T(2) * at(dfeatures + t) * r;  // of j = i
        for (int64_t j = i + 1; j < n; ++j) {
          const vec<T> g = at(dfeatures + (j - i) * B + t);
          at(drows + j * B + t) += g * r;
          sum += g * at(rows + j * B + t);
        }
        at(drows + i * B + t) += sum;
      }
  }
};

// use(number of registers, first token), two registers at a time
template <typename T, typename Use>
inline void by_registers(int64_t columns, Use use) {
  int64_t t = 0;
  for (; t + 2 * W<T> <= columns; t += 2 * W<T>) use(std::integral_constant<int, 2>(), t);
  if (t < columns) use(std::integral_constant<int, 1>(), t);
}

// out[c, tokens] = sum_f state[f, c] feature_f[tokens] for C columns and V registers of tokens. The state's rows lie
// step apart.
template <int V, int C, typename T>
TILE void read_tile(const Features& f, const T* rows, int64_t B, const T* state, int64_t step, T* out) {
  for (int64_t i = 0; i < f.n;) {
    vec<T> sum[C][V];
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[c][v] = vec<T>{};
    const bool begins = i == 0;
    const int64_t end = f.first(i) + Features::SUMMED;  // sums of sums err less than one long sum
    for (; i < f.n && f.first(i) < end; ++i)
      for (int64_t j = i; j < f.n; ++j, state += step) {
        vec<T> feature[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) feature[v] = at(rows + i * B + v * W<T>) * at(rows + j * B + v * W<T>);
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c)
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) sum[c][v] += state[c] * feature[v];
      }
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        vec<T>& to = at(out + c * B + v * W<T>);
        to = begins ? sum[c][v] : to + sum[c][v];
      }
  }
}

// Add the gradient of rows, given that of C columns, for V registers of tokens: each feature's is sum_c state[f, c]
// gradient[c, tokens].
template <int V, int C, typename T>
TILE void pull_tile(const Features& f, const T* rows, int64_t B, const T* state, const T* gradient, T* drows) {
  vec<T> g[C][V];
#pragma GCC unroll 16
  for (int c = 0; c < C; ++c)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) g[c][v] = at(gradient + c * B + v * W<T>);
  for (int64_t i = 0; i < f.n; ++i) {
    vec<T> sum[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[v] = vec<T>{};
    for (int64_t j = i; j < f.n; ++j, state += C)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        vec<T> even = state[0] * g[0][v], odd = vec<T>{};
#pragma GCC unroll 16
        for (int c = 1; c < C; ++c) (c % 2 ? odd : even) += state[c] * g[c][v];
        even += odd;
        sum[v] += even * at(rows + j * B + v * W<T>);
        at(drows + j * B + v * W<T>) += even * at(rows + i * B + v * W<T>);
      }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) at(drows + i * B + v * W<T>) += sum[v];
  }
}

// Add two features times C columns, of each place in a register apart: sums [2, C, W].
template <int C, typename T>
TILE void sum_tile(const T* const (&factors)[2][2], const T* columns, int64_t B, int64_t tokens, T* sums) {
  vec<T> sum[2][C];
#pragma GCC unroll 32
  for (int i = 0; i < 2 * C; ++i) sum[i / C][i % C] = at(sums + i * W<T>);
  for (int64_t t = 0; t < tokens; t += W<T>) {
    const vec<T> first = at(factors[0][0] + t) * at(factors[0][1] + t);
    const vec<T> second = at(factors[1][0] + t) * at(factors[1][1] + t);
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) {
      const vec<T> column = at(columns + c * B + t);
      sum[0][c] += first * column;
      sum[1][c] += second * column;
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < 2 * C; ++i) at(sums + i * W<T>) = sum[i / C][i % C];
}

}  // namespace taylorir
