// Softmax attention: scores of a block of queries and a chunk of keys at a time, never all of them.
//
// A query's scores are taken under the largest that it has met; where a chunk brings a larger one, what was summed
// before is scaled down to it. Backward finds each weight at once, from the logarithm of the sum of all. Shape legend as
// in efficient.h.
#pragma once

#include <limits>

#include "pairs.h"

namespace taylorir {

template <typename T>
using Whole = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
template <typename T>
using whole_vec = vec<Whole<T>>;

// e^x for x that is not above 0; 0 where that is below the normal numbers.
template <typename T>
inline vec<T> exponential(vec<T> x) {
  if constexpr (sizeof(T) == 8) {
    for (int i = 0; i < W<T>; ++i) x[i] = std::exp(x[i]);
    return x;
  } else {  // 2^n e^r, the nearest whole n; of the Taylor series of e^r stays out what float32 rounds off: r^8 / 8! < 2^-27
    constexpr float WHOLE = 12582912;  // 1.5 2^23: the last bits of a sum with it are those of the nearest whole number
    const vec<float> shifted = x * 1.44269504f + WHOLE, n = shifted - WHOLE;
    const vec<float> r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // log 2 in two parts, the first one of few bits
    vec<float> sum = r * (1 / 5040.f) + 1 / 720.f;
    sum = sum * r + 1 / 120.f;
    sum = sum * r + 1 / 24.f;
    sum = sum * r + 1 / 6.f;
    sum = sum * r + 0.5f;
    sum = sum * r + 1.f;
    sum = sum * r + 1.f;
    const auto power = (vec<float>)(((whole_vec<float>)shifted << 23) + 0x3f800000);
    return (vec<float>)((whole_vec<float>)(sum * power) & (whole_vec<float>)(x > -87.f));
  }
}

// What is added to scores [keys, queries]: a bias, and minus infinity where labels differ. Either may be missing.
template <typename T>
struct Added {
  const T* bias;    // [queries, keys], or turned [keys, queries], whose rows are padded to a register
  int64_t step;     // from a row of the bias to the next
  bool turned;
  int64_t queries;  // rows of a bias that is not turned
  const Whole<T>*query_labels, *key_labels;

  // scores [number, B] of keys from `key` on and queries from `first` on
  template <int64_t B>
  void add(T* scores, int64_t key, int64_t number, int64_t first, int64_t columns) const {
    if (bias && turned)
      for (int64_t m = 0; m < number; ++m)
        for (int64_t x = 0; x < columns; x += W<T>) at(scores + m * B + x) += at(bias + (key + m) * step + first + x);
    if (bias && !turned)
      for (int64_t x = 0; x < columns; x += W<T>)
        for (int64_t m = 0; m < number; m += W<T>) add_turned(scores + m * B + x, B, key + m, first + x, number - m);
    if (query_labels)
      for (int64_t m = 0; m < number; ++m)
        for (int64_t x = 0; x < columns; x += W<T>) {
          vec<T>& score = at(scores + m * B + x);
          const whole_vec<T> same = at(query_labels + first + x) == key_labels[key + m];
          const vec<T> never = vec<T>{} - std::numeric_limits<T>::infinity();
          score = (vec<T>)(((whole_vec<T>)score & same) | ((whole_vec<T>)never & ~same));
        }
  }

 private:
  void add_turned(T* scores, int64_t B, int64_t key, int64_t query, int64_t number) const {
    vec<T> tile[W<T>];
#pragma GCC unroll 16
    for (int64_t u = 0; u < W<T>; ++u) {
      const int64_t row = std::min(query + u, queries - 1);
      tile[u] = load_part<T>(bias + row * step + key, std::min<int64_t>(number, W<T>));
    }
    exchange_all<1, T>(tile);
#pragma GCC unroll 16
    for (int64_t u = 0; u < W<T>; ++u)
      if (u < number) at(scores + u * B) += tile[u];
  }
};

template <typename T>
struct Softmax : Pairs<T, 64> {
  using Base = Pairs<T, 64>;
  using Base::B, Base::d, Base::c, Base::D, Base::C, Base::most, Base::queries, Base::key_rows, Base::values, Base::scores;
  using Base::weights, Base::dqueries, Base::dkeys, Base::dvalues;
  using Base::block;
  Numbers<T> level;  // of each query: its largest score, or the logarithm of its weights' sum

  Softmax(int64_t d, int64_t c, int64_t num_keys, bool backward) : Base(d, c, num_keys, backward), level(B) {}

  // Queries begin .. end - 1. y, and into `logs` the logarithms of sums of weights before they are normalised.
  void forward(const Tokens& q, const Tokens& k, const Tokens& v, T scale, const Added<T>& added, int64_t begin,
               int64_t end, const Tokens& y, const Tokens& logs) {
    load_keys(k, v);
    by_block<T, B>(begin, end, [&](int64_t first, int64_t count, int64_t columns) {
      load_queries(q, scale, first, count, columns);
      std::fill(block.column_rows.begin(), block.column_rows.end(), T(0));
      std::fill(level.begin(), level.end(), std::numeric_limits<T>::lowest());
      this->by_chunk(k.count, [&](int64_t key, int64_t number) {
        this->score(key, number, columns);
        added.template add<B>(scores.data(), key, number, first, columns);
        for (int64_t x = 0; x < columns; x += W<T>) {
          vec<T> largest = at(&level[x]);
          for (int64_t m = 0; m < number; ++m) {
            const vec<T> score = at(&scores[m * B + x]);
            largest = score > largest ? score : largest;
          }
          if (key > 0) {
            const vec<T> less = exponential<T>(at(&level[x]) - largest);
            for (int64_t i = 0; i < c; ++i) at(&block.column_rows[i * B + x]) *= less;
          }
          at(&level[x]) = largest;
          for (int64_t m = 0; m < number; ++m)
            at(&scores[m * B + x]) = exponential<T>(at(&scores[m * B + x]) - largest);
        }
        this->weigh_values(key, number, columns);
      });
      block.store_output(y, logs, 1, first, count);
      for (int64_t t = 0; t < count; ++t) *logs.at<T>(first + t) = level[t] - std::log(*logs.at<T>(first + t));
    });
  }

  // All gradients of a window; that of the bias, [keys, queries], is added to, where there is one.
  void backward(const Tokens& q, const Tokens& k, const Tokens& v, T scale, const Added<T>& added, const Tokens& dy,
                const Tokens& y, const Tokens& logs, const Tokens& dq, const Tokens& dk, const Tokens& dv, T* dbias) {
    load_keys(k, v);
    this->begin_backward(k.count);
    T one = 1;
    const Tokens ones{reinterpret_cast<char*>(&one), logs.kind, 0, 1, logs.count, nullptr};
    by_block<T, B>(0, q.count, [&](int64_t first, int64_t count, int64_t columns) {
      load_queries(q, scale, first, count, columns);
      block.load_gradient(dy, y, ones, 1, first, count);
      this->begin_block();
      for (int64_t t = 0; t < columns; ++t) level[t] = t < count ? *logs.at<T>(first + t) : T(0);
      this->by_chunk(k.count, [&](int64_t key, int64_t number) {
        this->score(key, number, columns);
        this->weight_gradients(key, number, columns);
        added.template add<B>(scores.data(), key, number, first, columns);
        for (int64_t m = 0; m < number; ++m)
          for (int64_t x = 0; x < columns; x += W<T>) {  // each becomes what the other was: gradients, weights
            vec<T>&score = at(&scores[m * B + x]), &weight = at(&weights[m * B + x]);
            const vec<T> share = exponential<T>(score - at(&level[x]));
            score = share * weight;
            weight = share;
            if (dbias) at(dbias + (key + m) * padded<T>(q.count) + first + x) += score;
          }
        this->pull_back(key, number, count, columns);
      });
      for (int64_t i = 0; i < d * B; ++i) dqueries[i] *= scale;
      store_rows(dqueries.data(), B, dq, first, count);
    });
    store_tokens(dkeys.data(), D, dk, 0, k.count);
    store_tokens(dvalues.data(), C, dv, 0, k.count);
  }

 private:
  void load_keys(const Tokens& k, const Tokens& v) {
    load_rows(k, 0, k.count, key_rows.data(), most);
    load_tokens(v, 0, v.count, values.data(), C);
    for (int64_t t = 0; t < v.count; ++t) values[t * C + v.width] = 1;
  }

  void load_queries(const Tokens& q, T scale, int64_t first, int64_t count, int64_t columns) {
    load_rows(q, first, count, queries.data(), B);
    for (int64_t i = 0; i < d; ++i)
      for (int64_t x = 0; x < columns; x += W<T>) at(&queries[i * B + x]) *= scale;
  }
};

}  // namespace taylorir
