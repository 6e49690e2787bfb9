// The efficient form: features of keys summed into a state, which the features of queries read.
//
// Shape legend: as in feature_tiles.h; state [F, c]: sum over the keys of features times columns
#pragma once

#include "register_sums.h"
#include "tile_sums.h"

namespace taylorir {

// The form on the tokens of one head of one segment, with its own memory. How sums are taken is a type: see
// register_sums.h.
template <typename Sums>
struct Efficient {
  using T = typename Sums::Number;
  using Setting = typename Sums::Setting;
  static constexpr int64_t B = Sums::B;
  int64_t c;
  Block<T, B> block;
  Numbers<T> drows;
  Sums sums;

  Efficient(const Features& f, int64_t c) : c(c), block(f.n - 1, c, 1), drows(block.rows.size()), sums(f, c) {}

  // Read by a state [F, c], and pull back by it if asked to.
  void weigh(const T* state, T tau, bool backward) { sums.weigh(state, tau, backward); }

  // State of the keys begin .. end - 1.
  void forward_keys(const Tokens& k, const Tokens& v, int64_t begin, int64_t end, T* out) {
    sums.begin();
    by_block<T, B>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(k, &v, first, count, columns);
      sums.load_values(block, v, first, count);
      sums.add(block, count, columns, near);
    });
    sums.store(out);
  }

  // Queries begin .. end - 1 read the state.
  template <typename Store>
  void forward_queries(const Tokens& q, int64_t begin, int64_t end, Store store) {
    by_block<T, B>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(q, nullptr, first, count, columns);
      sums.read(block, columns, c, near);
      store(first, count);
    });
  }

  // dq, and the gradient of the state; load_gradient(first, count) brings that of (a, b).
  template <typename Load>
  void backward_queries(const Tokens& q, int64_t begin, int64_t end, Load load_gradient, const Tokens& dq, T* dstate) {
    sums.begin();
    by_block<T, B>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(q, nullptr, first, count, columns);
      load_gradient(first, count);
      sums.take_rows(block);
      sums.add(block, count, columns, near);
      pull_back(dq, first, count, columns);
    });
    sums.store(dstate);
  }

  // dk and dv.
  void backward_keys(const Tokens& k, const Tokens& v, int64_t begin, int64_t end, const Tokens& dk, const Tokens& dv) {
    by_block<T, B>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load(k, &v, first, count, columns);
      sums.read(block, columns, c - 1, near);
      store_rows(block.column_rows.data(), B, dv, first, count);
      block.load_value_rows(v, first, count);
      pull_back(dk, first, count, columns);
    });
  }

 private:
  Coming near;

  void load(const Tokens& x, const Tokens* with, int64_t first, int64_t count, int64_t columns) {
    near = {{&x, with}, first + B, B};
    block.load_units(x, first, count);
    for (int64_t t = 0; t < columns; ++t) block.rows[t] = t < count;
  }

  // The gradient of tokens from that of the columns.
  void pull_back(const Tokens& to, int64_t first, int64_t count, int64_t columns) {
    std::fill(drows.begin(), drows.end(), T(0));
    sums.pull_back(block, columns, drows.data());
    block.store_gradient(drows.data() + B, to, first, count);
  }
};

}  // namespace taylorir
