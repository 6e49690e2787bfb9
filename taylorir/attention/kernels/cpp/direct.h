// The direct form: weights of a block of queries and a chunk of keys at a time, never all of them.
//
// Weights are (1 + x)^2 + 1, twice 1 + x + x^2 / 2; the two drops out of y = a / b. Shape legend as in efficient.h.
#pragma once

#include "tokens.h"

namespace taylorir {

template <typename T>
struct Direct {
  static constexpr int64_t B = BLOCK<T>, CHUNK = 48;
  int64_t d, c, D, C, most;  // most keys of a segment, in blocks
  Block<T, B> block;
  Numbers<T> queries, key_rows, key_inverse, values, scores, weights;
  Numbers<T> query_tokens, key_tokens, value_rows, dqueries, dkeys, dvalues;

  Direct(int64_t d, int64_t c, int64_t num_keys, bool backward)
      : d(d), c(c), D(padded<T>(d)), C(padded<T>(c)), most((num_keys + B - 1) / B * B), block(d, c), queries(D * B),
        key_rows(D * most), key_inverse(most), values(C * most), scores(CHUNK * B) {
    if (!backward) return;
    weights.resize(CHUNK * B), query_tokens.resize(B * D), key_tokens.resize(D * most), value_rows.resize(C * most);
    dqueries.resize(D * B), dkeys.resize(D * most), dvalues.resize(C * most);
  }

  // Queries begin .. end - 1; store(first, count) takes (a, b) by row from the block's columns.
  template <typename Store>
  void forward(const Tokens& q, const Tokens& k, const Tokens& v, T tau, int64_t begin, int64_t end, Store store) {
    load_keys(k, v);
    by_block<T, B>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load_queries(q, tau, first, count);
      std::fill(block.column_rows.begin(), block.column_rows.end(), T(0));
      for (int64_t key = 0; key < k.count; key += CHUNK) {
        const int64_t number = std::min(k.count - key, CHUNK);
        product<false, 1>(number, columns, d, &key_rows[key], most, queries.data(), B, scores.data(), B);
        for (int64_t x = 0; x < number * B; x += W<T>) {
          const vec<T> score = at(&scores[x]) + T(1);
          at(&scores[x]) = score * score + T(1);
        }
        product<true, 1>(c, columns, number, &values[key * C], C, scores.data(), B, block.column_rows.data(), B);
      }
      store(first, count);
    });
  }

  // All gradients; load(first, count) brings those of (a, b). Returns dtau.
  template <typename Load>
  T backward(const Tokens& q, const Tokens& k, const Tokens& v, T tau, Load load, const Tokens& dq, const Tokens& dk,
             const Tokens& dv) {
    load_keys(k, v);
    const int64_t keys = (k.count + B - 1) / B * B;
    transpose(key_rows.data(), most, D, keys, key_tokens.data(), D);
    transpose(values.data(), C, keys, C, value_rows.data(), most);
    std::fill_n(dkeys.begin(), keys * D, T(0));
    std::fill_n(dvalues.begin(), keys * C, T(0));
    double dtau = 0;
    by_block<T, B>(0, q.count, [&](int64_t first, int64_t count, int64_t columns) {
      load_queries(q, tau, first, count);
      transpose(queries.data(), B, D, B, query_tokens.data(), D);
      load(first, count);
      block.columns_to_tokens(c);
      std::fill(dqueries.begin(), dqueries.end(), T(0));
      for (int64_t key = 0; key < k.count; key += CHUNK) {
        const int64_t number = std::min(k.count - key, CHUNK);
        product<false, 1>(number, columns, d, &key_rows[key], most, queries.data(), B, scores.data(), B);
        product<false, 1>(number, columns, c, &value_rows[key], most, block.column_rows.data(), B, weights.data(), B);
        for (int64_t x = 0; x < number * B; x += W<T>) {  // each becomes what the other was: gradients, weights
          const vec<T> score = at(&scores[x]) + T(1);
          at(&scores[x]) = T(2) * at(&weights[x]) * score;
          at(&weights[x]) = score * score + T(1);
        }
        product<true, 1>(d, columns, number, &key_tokens[key * D], D, scores.data(), B, dqueries.data(), B);
        product<true, B>(number, D, count, scores.data(), 1, query_tokens.data(), D, &dkeys[key * D], D);
        product<true, B>(number, C, count, weights.data(), 1, block.column_tokens.data(), C, &dvalues[key * C], C);
      }
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
