// The efficient form: features of keys summed into a state, which the features of queries read.
//
// Shape legend
//   d, c   width of q and k; columns: d_v of v and one of ones, so that numerators and normaliser are one product
//   rows   r = (1, u) of a unit vector u: n = d + 1 of them
//   F      features n (n + 1) / 2: the products r_i r_j, i <= j, in the order (0, 0), (0, 1), .., (1, 1), ..
//   state  [F, c]: sum over the keys of features times columns
#pragma once

#include "tokens.h"

namespace taylorir {

struct Features {
  // Features are made in chunks of whole i, and used while they are in the first cache.
  static constexpr int64_t CHUNK = 48;
  int64_t n, count, most = 0;      // rows, features, features of the largest chunk
  std::vector<int64_t> starts{0};  // i at which each chunk begins, and n

  explicit Features(int64_t d) : n(d + 1), count((d + 1) * (d + 2) / 2) {
    for (int64_t i = 0, size = 0; i < n; ++i) {
      if (size && size + n - i > CHUNK) starts.push_back(i), size = 0;
      size += n - i;
      most = std::max(most, size);
    }
    starts.push_back(n);
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

  // Features of i0 <= i < i1, by row.
  template <typename T>
  void make(int64_t i0, int64_t i1, int64_t columns, const T* __restrict rows, T* __restrict features) const {
    constexpr int64_t B = BLOCK<T>;
    for (int64_t i = i0; i < i1; features += (n - i++) * B)
      for (int64_t t = 0; t < columns; t += W<T>) {
        const vec<T> r = at(rows + i * B + t);
        for (int64_t j = i; j < n; ++j) at(features + (j - i) * B + t) = r * at(rows + j * B + t);
      }
  }

  // Add to the gradient of rows that of their features i0 <= i < i1.
  template <typename T>
  void add_gradient(int64_t i0, int64_t i1, int64_t columns, const T* __restrict dfeatures, const T* __restrict rows,
                    T* __restrict drows) const {
    constexpr int64_t B = BLOCK<T>;
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

// The form on the tokens of one head of one segment, with its own memory.
template <typename T>
struct Efficient {
  static constexpr int64_t B = BLOCK<T>;
  const Features& f;
  int64_t c;
  Block<T> block;
  std::vector<T> features, drows, state, read, pulled;

  Efficient(const Features& f, int64_t c)
      : f(f), c(c), block(f.n - 1, c, 1), features(f.most * B), drows(block.rows.size()),
        state(f.count * padded<T>(c)), read(f.count * c), pulled(f.count * c) {}

  // The state to read by: [F, c], or its first columns; and to pull back by, [c, F]; both weighted.
  void weigh(const T* from, T tau, int64_t columns, bool transposed) {
    f.weigh(tau, [&](int64_t i, T weight, T) {
      for (int64_t j = 0; j < columns; ++j) read[i * columns + j] = weight * from[i * c + j];
      if (transposed)
        for (int64_t j = 0; j < c; ++j) pulled[j * f.count + i] = weight * from[i * c + j];
    });
  }

  // State of the keys begin .. end - 1.
  void forward_keys(const Tokens& k, const Tokens& v, int64_t begin, int64_t end, T* out) {
    std::fill(state.begin(), state.end(), T(0));
    by_block<T>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(k, first, count);
      block.load_values(v, first, count);
      f.by_chunk([&](int64_t i0, int64_t i1, int64_t at, int64_t number) {
        f.make(i0, i1, columns, block.rows.data(), features.data());
        add_to_state(at, number, count);
      });
    });
    store_state(out);
  }

  // Queries begin .. end - 1 read the state.
  template <typename Store>
  void forward_queries(const Tokens& q, int64_t begin, int64_t end, Store store) {
    by_block<T>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(q, first, count);
      f.by_chunk([&](int64_t i0, int64_t i1, int64_t at, int64_t number) {
        f.make(i0, i1, columns, block.rows.data(), features.data());
        read_state(at, number, columns, c);
      });
      store(first, count);
    });
  }

  // dq, and the gradient of the state; load_gradient(first, count) brings that of (a, b).
  template <typename Load>
  void backward_queries(const Tokens& q, int64_t begin, int64_t end, Load load_gradient, const Tokens& dq, T* dstate) {
    std::fill(state.begin(), state.end(), T(0));
    by_block<T>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(q, first, count);
      load_gradient(first, count);
      f.by_chunk([&](int64_t i0, int64_t i1, int64_t at, int64_t number) {
        f.make(i0, i1, columns, block.rows.data(), features.data());
        add_to_state(at, number, count);
        pull_back(i0, i1, at, number, columns, block.column_rows.data());
      });
      block.store_gradient(drows.data() + B, dq, first, count);
    });
    store_state(dstate);
  }

  // dk and dv.
  void backward_keys(const Tokens& k, const Tokens& v, int64_t begin, int64_t end, const Tokens& dk, const Tokens& dv) {
    by_block<T>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(k, first, count);
      block.load_values(v, first, count);
      block.columns_to_rows(c);
      std::swap(block.column_rows, block.y_rows);
      f.by_chunk([&](int64_t i0, int64_t i1, int64_t at, int64_t number) {
        f.make(i0, i1, columns, block.rows.data(), features.data());
        read_state(at, number, columns, c - 1);
        pull_back(i0, i1, at, number, columns, block.y_rows.data());
      });
      block.store_columns(dv, first, count, c);
      block.store_gradient(drows.data() + B, dk, first, count);
    });
  }

 private:
  void load(const Tokens& x, int64_t first, int64_t count) {
    block.load_units(x, first, count);
    for (int64_t t = 0; t < B; ++t) block.rows[t] = t < count;
    std::fill(drows.begin(), drows.end(), T(0));
  }

  void add_to_state(int64_t at, int64_t number, int64_t count) {
    const int64_t C = padded<T>(c);
    product<true, B>(number, C, count, features.data(), 1, block.column_tokens.data(), C, &state[at * C], C);
  }

  void store_state(T* out) const {
    for (int64_t i = 0; i < f.count; ++i) std::copy_n(&state[i * padded<T>(c)], c, out + i * c);
  }

  void read_state(int64_t at, int64_t number, int64_t columns, int64_t width) {
    T* out = block.column_rows.data();
    const T* part = &read[at * width];
    if (at == 0)
      product<false, 1>(width, columns, number, part, width, features.data(), B, out, B);
    else
      product<true, 1>(width, columns, number, part, width, features.data(), B, out, B);
  }

  void pull_back(int64_t i0, int64_t i1, int64_t at, int64_t number, int64_t columns, const T* column_rows) {
    product<false, 1>(number, columns, c, &pulled[at], f.count, column_rows, B, features.data(), B);
    f.add_gradient(i0, i1, columns, features.data(), block.rows.data(), drows.data());
  }
};

}  // namespace taylorir
