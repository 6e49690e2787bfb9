// The efficient form: features of keys summed into a state, which the features of queries read.
//
// Shape legend: as in feature_tiles.h; state [F, c]: sum over the keys of features times columns
#pragma once

#include "feature_tiles.h"
#include "tokens.h"

namespace taylorir {

// The form on the tokens of one head of one segment, with its own memory. With few columns (NARROW) features are never
// written: two of them times all columns are summed over many tokens, in registers, before the next two.
template <typename T, bool NARROW>
struct Efficient {
  static constexpr int64_t B = NARROW ? 6 * BLOCK<T> : BLOCK<T>;
  const Features& f;
  int64_t c;
  Block<T, B> block;
  Numbers<T> drows, features, state, read, pulled;

  Efficient(const Features& f, int64_t c)
      : f(f), c(c), block(f.n - 1, c, 1), drows(block.rows.size()), features(NARROW ? 0 : f.most * B),
        state(NARROW ? padded<T>((f.count + 1) * c) * W<T> : f.count * padded<T>(c)), read(f.count * c),
        pulled(NARROW ? 0 : f.count * c) {}

  // The state to read by, [F, c], weighted; and transposed, to pull back by.
  void weigh(const T* from, T tau, bool backward) {
    f.weigh(tau, [&](int64_t i, T weight, T) {
      for (int64_t j = 0; j < c; ++j) read[i * c + j] = weight * from[i * c + j];
      if (!NARROW && backward)
        for (int64_t j = 0; j < c; ++j) pulled[j * f.count + i] = read[i * c + j];
    });
  }

  // State of the keys begin .. end - 1.
  void forward_keys(const Tokens& k, const Tokens& v, int64_t begin, int64_t end, T* out) {
    std::fill(state.begin(), state.end(), T(0));
    by_block<T, B>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(k, &v, first, count, columns);
      NARROW ? block.load_value_rows(v, first, count) : block.load_value_tokens(v, first, count);
      add_to_state(count, columns);
    });
    store_state(out);
  }

  // Queries begin .. end - 1 read the state.
  template <typename Store>
  void forward_queries(const Tokens& q, int64_t begin, int64_t end, Store store) {
    by_block<T, B>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(q, nullptr, first, count, columns);
      read_state(columns, c);
      store(first, count);
    });
  }

  // dq, and the gradient of the state; load_gradient(first, count) brings that of (a, b).
  template <typename Load>
  void backward_queries(const Tokens& q, int64_t begin, int64_t end, Load load_gradient, const Tokens& dq, T* dstate) {
    std::fill(state.begin(), state.end(), T(0));
    by_block<T, B>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(q, nullptr, first, count, columns);
      load_gradient(first, count);
      if (!NARROW) block.columns_to_tokens(c);
      add_to_state(count, columns);
      pull_back(columns);
      block.store_gradient(drows.data() + B, dq, first, count);
    });
    store_state(dstate);
  }

  // dk and dv.
  void backward_keys(const Tokens& k, const Tokens& v, int64_t begin, int64_t end, const Tokens& dk, const Tokens& dv) {
    by_block<T, B>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(k, &v, first, count, columns);
      read_state(columns, c - 1);
      store_rows(block.column_rows.data(), B, dv, first, count);
      block.load_value_rows(v, first, count);
      pull_back(columns);
      block.store_gradient(drows.data() + B, dk, first, count);
    });
  }

 private:
  const Tokens* coming[2];  // tokens of the next block
  int64_t next;

  // Bring a part of the next block near; with few columns that costs more time than it saves.
  void bring(int64_t from, int64_t to, int64_t of) const {
    for (const Tokens* x : coming)
      if (x) x->prefetch(next + B * from / of, next + B * to / of);
  }

  void load(const Tokens& x, const Tokens* with, int64_t first, int64_t count, int64_t columns) {
    coming[0] = &x, coming[1] = with, next = first + B;
    block.load_units(x, first, count);
    for (int64_t t = 0; t < columns; ++t) block.rows[t] = t < count;
  }

  void add_to_state(int64_t count, int64_t columns) {
    const T *rows = block.rows.data();
    if constexpr (NARROW) {
      as_constant<MOST_COLUMNS>(c, [&](auto C) {
        for (int64_t i = 0; i < f.count; i += 2) {
          const auto [a, b] = f.factors[i];
          const auto [x, y] = f.factors[i + 1];
          const T* const factors[2][2] = {{rows + a * B, rows + b * B}, {rows + x * B, rows + y * B}};
          sum_tile<C>(factors, block.column_rows.data(), B, columns, &state[i * c * W<T>]);
        }
      });
    } else {
      const int64_t wide = padded<T>(c);
      f.by_chunk([&](int64_t i0, int64_t i1, int64_t at, int64_t number) {
        bring(i0, i1, f.n);
        f.make<B>(i0, i1, columns, rows, features.data());
        product<true, B>(number, wide, count, features.data(), 1, block.column_tokens.data(), wide, &state[at * wide],
                         wide);
      });
    }
  }

  void store_state(T* out) {
    const int64_t wide = padded<T>(c), size = f.count * c;
    if constexpr (NARROW) {
      for (int64_t i = 0; i < size; i += W<T>) {  // sum of all places of a register
        T sums[W<T> * W<T>];
        transpose(&state[i * W<T>], W<T>, W<T>, W<T>, sums, W<T>);
        for (int64_t j = 1; j < W<T>; ++j) at(sums) += at(sums + j * W<T>);
        std::copy_n(sums, std::min<int64_t>(W<T>, size - i), out + i);
      }
    } else {
      for (int64_t i = 0; i < f.count; ++i) std::copy_n(&state[i * wide], c, out + i * c);
    }
  }

  // The first columns of what the tokens read.
  void read_state(int64_t columns, int64_t width) {
    const int64_t tiles = (width + MOST_COLUMNS - 1) / MOST_COLUMNS;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = width * tile / tiles;
      as_constant<MOST_COLUMNS>(width * (tile + 1) / tiles - first, [&](auto C) {
        by_registers(columns, [&](auto V, int64_t t) {
          if (!NARROW && first == 0) bring(t, t + 2 * W<T>, columns);
          read_tile<V, C>(f, &block.rows[t], B, &read[first], c, &block.column_rows[first * B + t]);
        });
      });
    }
  }

  // The gradient of rows from that of columns.
  void pull_back(int64_t columns) {
    const T* gradient = block.column_rows.data();
    std::fill(drows.begin(), drows.end(), T(0));
    if constexpr (NARROW) {
      as_constant<MOST_COLUMNS>(c, [&](auto C) {
        by_registers(columns, [&](auto V, int64_t t) {
          pull_tile<V, C>(f, &block.rows[t], B, read.data(), gradient + t, &drows[t]);
        });
      });
    } else {
      f.by_chunk([&](int64_t i0, int64_t i1, int64_t at, int64_t number) {
        product<false, 1>(number, columns, c, &pulled[at], f.count, gradient, B, features.data(), B);
        f.add_gradient<B>(i0, i1, columns, features.data(), block.rows.data(), drows.data());
      });
    }
  }

  // use(number of registers, first token), two registers at a time
  template <typename Use>
  static void by_registers(int64_t columns, Use use) {
    int64_t t = 0;
    for (; t + 2 * W<T> <= columns; t += 2 * W<T>) use(std::integral_constant<int, 2>(), t);
    if (t < columns) use(std::integral_constant<int, 1>(), t);
  }
};

}  // namespace taylorir
