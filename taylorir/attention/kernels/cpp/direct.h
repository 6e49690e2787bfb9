// The direct form: weights of a block of queries and a chunk of keys at a time, never all of them.
//
// Weights are (1 + x)^2 + 1, twice 1 + x + x^2 / 2; the two drops out of y = a / b. Shape legend as in efficient.h.
#pragma once

#include "pairs.h"

namespace taylorir {

template <typename T>
struct Direct : Pairs<T, 48> {
  using Base = Pairs<T, 48>;
  using Base::B, Base::d, Base::c, Base::D, Base::C, Base::most, Base::queries, Base::key_rows, Base::values, Base::scores;
  using Base::weights, Base::dqueries, Base::dkeys, Base::dvalues;
  using Base::block;
  Numbers<T> key_inverse;

  Direct(int64_t d, int64_t c, int64_t num_keys, bool backward) : Base(d, c, num_keys, backward), key_inverse(most) {}

  // Queries begin .. end - 1; store(first, count) takes (a, b) by row from the block's columns.
  template <typename Store>
  void forward(const Tokens& q, const Tokens& k, const Tokens& v, T tau, int64_t begin, int64_t end, Store store) {
    load_keys(k, v);
    by_block<T, B>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load_queries(q, tau, first, count);
      std::fill(block.column_rows.begin(), block.column_rows.end(), T(0));
      this->by_chunk(k.count, [&](int64_t key, int64_t number) {
        this->score(key, number, columns);
        for (int64_t x = 0; x < number * B; x += W<T>) {
          const vec<T> score = at(&scores[x]) + T(1);
          at(&scores[x]) = score * score + T(1);
        }
        this->weigh_values(key, number, columns);
      });
      store(first, count);
    });
  }

  // All gradients; load(first, count) brings those of (a, b). Returns dtau.
  template <typename Load>
  T backward(const Tokens& q, const Tokens& k, const Tokens& v, T tau, Load load, const Tokens& dq, const Tokens& dk,
             const Tokens& dv) {
    load_keys(k, v);
    this->begin_backward(k.count);
    double dtau = 0;
    by_block<T, B>(0, q.count, [&](int64_t first, int64_t count, int64_t columns) {
      load_queries(q, tau, first, count);
      load(first, count);
      this->begin_block();
      this->by_chunk(k.count, [&](int64_t key, int64_t number) {
        this->score(key, number, columns);
        this->weight_gradients(key, number, columns);
        for (int64_t x = 0; x < number * B; x += W<T>) {  // each becomes what the other was: gradients, weights
          const vec<T> score = at(&scores[x]) + T(1);
          at(&scores[x]) = T(2) * at(&weights[x]) * score;
          at(&weights[x]) = score * score + T(1);
        }
        this->pull_back(key, number, count, columns);
      });
      dtau += block.store_gradient(dqueries.data(), dq, first, count, tau);
    });
    by_block<T, B>(0, k.count, [&](int64_t first, int64_t count, int64_t) {
      for (int64_t i = 0; i < d; ++i) std::copy_n(&key_rows[i * most + first], B, block.units() + i * B);
      transpose(&dkeys[first * D], D, B, D, dqueries.data(), B);
      std::copy_n(&key_inverse[first], B, block.inverse.data());
      block.store_gradient(dqueries.data(), dk, first, count);
      store_tokens(&dvalues[first * C], C, dv, first, count);
    });
    return static_cast<T>(dtau);
  }

 private:
  void load_keys(const Tokens& k, const Tokens& v) {
    by_block<T, B>(0, k.count, [&](int64_t first, int64_t count, int64_t) {
      block.load_units(k, first, count);
      for (int64_t i = 0; i < d; ++i) std::copy_n(block.units() + i * B, B, &key_rows[i * most + first]);
      std::copy_n(block.inverse.data(), B, &key_inverse[first]);
      block.load_value_tokens(v, first, count);
      std::copy_n(block.column_tokens.data(), B * C, &values[first * C]);
    });
  }

  void load_queries(const Tokens& q, T tau, int64_t first, int64_t count) {
    block.load_units(q, first, count);
    for (int64_t i = 0; i < d * B; ++i) queries[i] = tau * block.units()[i];
  }
};

}  // namespace taylorir
