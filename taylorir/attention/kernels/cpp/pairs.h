// What attention over all pairs of tokens works on, a block of queries and a chunk of keys at a time, whatever its weights.
//
// Shape legend as in efficient.h.
#pragma once

#include "tokens.h"

namespace taylorir {

template <typename T, int64_t CHUNK>
struct Pairs {
  static constexpr int64_t B = BLOCK<T>;
  int64_t d, c, D, C, most;  // most keys of a segment, in blocks
  Block<T, B> block;
  Numbers<T> queries, key_rows, values, scores, weights;
  Numbers<T> query_tokens, key_tokens, value_rows, dqueries, dkeys, dvalues;

  Pairs(int64_t d, int64_t c, int64_t num_keys, bool backward)
      : d(d), c(c), D(padded<T>(d)), C(padded<T>(c)), most((num_keys + B - 1) / B * B), block(d, c), queries(D * B),
        key_rows(D * most), values(C * most), scores(CHUNK * B) {
    if (!backward) return;
    weights.resize(CHUNK * B), query_tokens.resize(B * D), key_tokens.resize(D * most), value_rows.resize(C * most);
    dqueries.resize(D * B), dkeys.resize(D * most), dvalues.resize(C * most);
  }

  // use(first key, how many) for each chunk
  template <typename Use>
  void by_chunk(int64_t keys, Use use) {
    for (int64_t key = 0; key < keys; key += CHUNK) use(key, std::min(keys - key, CHUNK));
  }

  // scores [number, B] of the block's queries
  void score(int64_t key, int64_t number, int64_t columns) {
    product<false, 1>(number, columns, d, &key_rows[key], most, queries.data(), B, scores.data(), B);
  }

  // Add values by scores, which have become weights, to the block's columns.
  void weigh_values(int64_t key, int64_t number, int64_t columns) {
    product<true, 1>(c, columns, number, &values[key * C], C, scores.data(), B, block.column_rows.data(), B);
  }

  // Before the first block of queries, with keys and values loaded
  void begin_backward(int64_t num_keys) {
    const int64_t keys = (num_keys + B - 1) / B * B;
    transpose(key_rows.data(), most, D, keys, key_tokens.data(), D);
    transpose(values.data(), C, keys, C, value_rows.data(), most);
    std::fill_n(dkeys.begin(), keys * D, T(0));
    std::fill_n(dvalues.begin(), keys * C, T(0));
  }

  // Before the first chunk of keys, with queries and the gradients of columns loaded
  void begin_block() {
    transpose(queries.data(), B, D, B, query_tokens.data(), D);
    block.columns_to_tokens(c);
    std::fill(dqueries.begin(), dqueries.end(), T(0));
  }

  // weights [number, B]: their gradients
  void weight_gradients(int64_t key, int64_t number, int64_t columns) {
    product<false, 1>(number, columns, c, &value_rows[key], most, block.column_rows.data(), B, weights.data(), B);
  }

  // Add to the gradients of queries, keys and values, when scores have become gradients and weights are weights again.
  void pull_back(int64_t key, int64_t number, int64_t count, int64_t columns) {
    product<true, 1>(d, columns, number, &key_tokens[key * D], D, scores.data(), B, dqueries.data(), B);
    product<true, B>(number, D, count, scores.data(), 1, query_tokens.data(), D, &dkeys[key * D], D);
    product<true, B>(number, C, count, weights.data(), 1, block.column_tokens.data(), C, &dvalues[key * C], C);
  }
};

}  // namespace taylorir
