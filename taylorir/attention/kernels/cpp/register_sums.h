// Sums of features in vector registers, by which the efficient form goes over a block of tokens.
//
// What a type of sums has
//   Number, B               of what type, and how many tokens a block has
//   Setting                 what a thread must hold while it uses them
//   begin(), store(out)     start a state [F, c] of zeros, and give it
//   load_values, take_rows  bring the columns to where `add` wants them: from tokens, or from the block's rows
//   add                     the tokens of a block to the state
//   weigh                   what `read` and `pull_back` go by: a state, each feature by what it counts
//   read                    the first columns of what the tokens read
//   pull_back               add the gradient of rows from that of columns
//
// Shape legend: as in feature_tiles.h; state [F, c]: sum over the keys of features times columns
#pragma once

#include "feature_tiles.h"
#include "tokens.h"

namespace taylorir {

// Tokens of the next block, and how to bring a part of them near.
struct Coming {
  const Tokens* tokens[2];
  int64_t next, size;
  void bring(int64_t from, int64_t to, int64_t of) const {
    for (const Tokens* x : tokens)
      if (x) x->prefetch(next + size * from / of, next + size * to / of);
  }
};

// out[t] = sum over the features of rows at t, for `width` columns from the first on; B numbers a row
template <typename T, typename Use>
inline void read_by_registers(const Features& f, const T* rows, int64_t B, const T* state, int64_t c, int64_t width,
                              int64_t columns, T* out, Use before) {
  const int64_t tiles = (width + MOST_COLUMNS - 1) / MOST_COLUMNS;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = width * tile / tiles;
    as_constant<MOST_COLUMNS>(width * (tile + 1) / tiles - first, [&](auto C) {
      by_registers<T>(columns, [&](auto V, int64_t t) {
        if (first == 0) before(t);
        read_tile<V, C>(f, rows + t, B, state + first, c, out + first * B + t);
      });
    });
  }
}

// With few columns features are never written: two of them times all columns are summed over many tokens, in registers,
// before the next two. To bring the next block near costs more time than it saves.
template <typename T>
struct NarrowSums {
  using Number = T;
  struct Setting {};
  static constexpr int64_t B = 6 * BLOCK<T>;
  const Features& f;
  int64_t c;
  Numbers<T> state, weighted;

  NarrowSums(const Features& f, int64_t c)
      : f(f), c(c), state(padded<T>((f.count + 1) * c) * W<T>), weighted(f.count * c) {}

  void begin() { std::fill(state.begin(), state.end(), T(0)); }

  void load_values(Block<T, B>& block, const Tokens& v, int64_t first, int64_t count) {
    block.load_value_rows(v, first, count);
  }
  void take_rows(Block<T, B>&) {}

  void add(const Block<T, B>& block, int64_t, int64_t columns, const Coming&) {
    const T* rows = block.rows.data();
    as_constant<MOST_COLUMNS>(c, [&](auto C) {
      for (int64_t i = 0; i < f.count; i += 2) {
        const auto [a, b] = f.factors[i];
        const auto [x, y] = f.factors[i + 1];
        const T* const factors[2][2] = {{rows + a * B, rows + b * B}, {rows + x * B, rows + y * B}};
        sum_tile<C>(factors, block.column_rows.data(), B, columns, &state[i * c * W<T>]);
      }
    });
  }

  void store(T* out) const {
    const int64_t size = f.count * c;
    for (int64_t i = 0; i < size; i += W<T>) {  // sum of all places of a register
      alignas(VECTOR_BYTES) T sums[W<T> * W<T>];
      transpose(&state[i * W<T>], W<T>, W<T>, W<T>, sums, W<T>);
      for (int64_t j = 1; j < W<T>; ++j) at(sums) += at(sums + j * W<T>);
      std::copy_n(sums, std::min<int64_t>(W<T>, size - i), out + i);
    }
  }

  void weigh(const T* from, T tau, bool) { f.weigh_state(from, tau, c, weighted.data()); }

  void read(Block<T, B>& block, int64_t columns, int64_t width, const Coming&) const {
    read_by_registers(f, block.rows.data(), B, weighted.data(), c, width, columns, block.column_rows.data(),
                      [](int64_t) {});
  }

  void pull_back(const Block<T, B>& block, int64_t columns, T* drows) const {
    as_constant<MOST_COLUMNS>(c, [&](auto C) {
      by_registers<T>(columns, [&](auto V, int64_t t) {
        pull_tile<V, C>(f, &block.rows[t], B, weighted.data(), &block.column_rows[t], drows + t);
      });
    });
  }
};

template <typename T>
struct WideSums {
  using Number = T;
  struct Setting {};
  static constexpr int64_t B = BLOCK<T>;
  const Features& f;
  int64_t c, wide = padded<T>(c);
  Numbers<T> features, state, weighted, pulled;  // pulled: the weighted state, transposed

  WideSums(const Features& f, int64_t c)
      : f(f), c(c), features(f.most * B), state(f.count * wide), weighted(f.count * c), pulled(f.count * c) {}

  void begin() { std::fill(state.begin(), state.end(), T(0)); }

  void load_values(Block<T, B>& block, const Tokens& v, int64_t first, int64_t count) {
    block.load_value_tokens(v, first, count);
  }
  void take_rows(Block<T, B>& block) { block.columns_to_tokens(c); }

  void add(const Block<T, B>& block, int64_t count, int64_t columns, const Coming& near) {
    f.by_chunk([&](int64_t i0, int64_t i1, int64_t at, int64_t number) {
      near.bring(i0, i1, f.n);
      f.make<B>(i0, i1, columns, block.rows.data(), features.data());
      product<true, B>(number, wide, count, features.data(), 1, block.column_tokens.data(), wide, &state[at * wide],
                       wide);
    });
  }

  void store(T* out) const {
    for (int64_t i = 0; i < f.count; ++i) std::copy_n(&state[i * wide], c, out + i * c);
  }

  void weigh(const T* from, T tau, bool backward) {
    f.weigh_state(from, tau, c, weighted.data());
    if (!backward) return;
    for (int64_t i = 0; i < f.count; ++i)
      for (int64_t j = 0; j < c; ++j) pulled[j * f.count + i] = weighted[i * c + j];
  }

  void read(Block<T, B>& block, int64_t columns, int64_t width, const Coming& near) const {
    read_by_registers(f, block.rows.data(), B, weighted.data(), c, width, columns, block.column_rows.data(),
                      [&](int64_t t) { near.bring(t, t + 2 * W<T>, columns); });
  }

  void pull_back(const Block<T, B>& block, int64_t columns, T* drows) {
    f.by_chunk([&](int64_t i0, int64_t i1, int64_t at, int64_t number) {
      product<false, 1>(number, columns, c, &pulled[at], f.count, block.column_rows.data(), B, features.data(), B);
      f.add_gradient<B>(i0, i1, columns, features.data(), block.rows.data(), drows);
    });
  }
};

}  // namespace taylorir
