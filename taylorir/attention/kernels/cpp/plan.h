// What a call is cut into: segments of windows and heads, whose tokens attend among themselves.
//
//   q [B, H, N, d]; k [B, H, M, d]; labels of queries [B, N] and keys [B, M], int64
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <map>
#include <optional>

#include "tokens.h"

namespace taylorir {

using at::Tensor;

// Tokens of one label: places in the order of queries and in that of keys.
struct Segment {
  int64_t query_begin, query_end, key_begin, key_end;
};

struct Pattern {
  std::vector<int64_t> queries, keys;  // tokens by label; empty: as they are
  std::vector<Segment> segments;
};

inline std::map<int64_t, std::vector<int64_t>> by_label(const int64_t* labels, int64_t size) {
  std::map<int64_t, std::vector<int64_t>> found;
  std::vector<int64_t>* last = nullptr;
  for (int64_t i = 0; i < size; ++i) {
    if (!last || labels[i] != labels[i - 1]) last = &found[labels[i]];
    last->push_back(i);
  }
  return found;
}

inline Pattern pattern_of(const int64_t* query, int64_t N, const int64_t* key, int64_t M) {
  Pattern p;
  const auto same = [&](const int64_t* x, int64_t size) {
    return std::all_of(x, x + size, [&](int64_t label) { return label == *query; });
  };
  if (same(query, N) && same(key, M)) {
    p.segments.push_back({0, N, 0, M});
    return p;
  }
  auto keys = by_label(key, M);
  for (const auto& [label, tokens] : by_label(query, N)) {
    const int64_t q = p.queries.size(), k = p.keys.size();
    const auto& others = keys[label];
    p.queries.insert(p.queries.end(), tokens.begin(), tokens.end());
    p.keys.insert(p.keys.end(), others.begin(), others.end());
    p.segments.push_back({q, int64_t(p.queries.size()), k, int64_t(p.keys.size())});
  }
  return p;
}

// A segment of a window and a head, and its number among all of them.
struct Work {
  int64_t window, head;
  const Pattern* pattern;
  Segment segment;
};

struct Plan {
  std::vector<Pattern> patterns;
  std::vector<Work> works;
  int64_t parts = 1;  // into which the tokens of each are cut, where there are too few for all threads

  Plan(const Tensor& q, const Tensor& k, const std::optional<Tensor>& query_labels,
       const std::optional<Tensor>& key_labels) {
    const int64_t B = q.size(0), H = q.size(1), N = q.size(2), M = k.size(2);
    if (query_labels) {
      const Tensor query = query_labels->contiguous(), key = key_labels->contiguous();
      for (int64_t b = 0; b < B; ++b)
        patterns.push_back(pattern_of(query.data_ptr<int64_t>() + b * N, N, key.data_ptr<int64_t>() + b * M, M));
    } else {
      patterns.emplace_back();
      patterns.back().segments.push_back({0, N, 0, M});
    }
    for (int64_t b = 0; b < B; ++b) {
      const Pattern& pattern = patterns[b % patterns.size()];
      for (const Segment& segment : pattern.segments)
        for (int64_t h = 0; h < H; ++h) works.push_back({b, h, &pattern, segment});
    }
    const int64_t number = works.size(), threads = at::get_num_threads();
    if (threads > 1 && number > 0 && number < 2 * threads)
      parts = std::max<int64_t>(1, std::min((2 * threads + number - 1) / number, std::max(N, M) / 256));
  }
};

inline Tokens tokens_of(const Tensor& x, const Work& work, bool keys) {
  const auto& order = keys ? work.pattern->keys : work.pattern->queries;
  const int64_t begin = keys ? work.segment.key_begin : work.segment.query_begin;
  const int64_t end = keys ? work.segment.key_end : work.segment.query_end;
  const Kind kind = x.scalar_type() == at::kDouble     ? Kind::float64
                    : x.scalar_type() == at::kFloat    ? Kind::float32
                    : x.scalar_type() == at::kBFloat16 ? Kind::bfloat16
                                                       : Kind::float16;
  const int64_t place = work.window * x.stride(0) + work.head * x.stride(1) + (order.empty() ? begin * x.stride(2) : 0);
  return {static_cast<char*>(x.data_ptr()) + place * x.element_size(), kind, x.stride(2), x.size(3), end - begin,
          order.empty() ? nullptr : order.data() + begin};
}

// Tokens of a part, from block to block.
template <typename T>
std::pair<int64_t, int64_t> part_of(int64_t tokens, int64_t part, int64_t parts) {
  const int64_t blocks = (tokens + BLOCK<T> - 1) / BLOCK<T>;
  return {std::min<int64_t>(tokens, blocks * part / parts * BLOCK<T>),
          std::min<int64_t>(tokens, blocks * (part + 1) / parts * BLOCK<T>)};
}

inline Tensor dense(const Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

// Gradients as kernels write them, numbers of a token side by side, and back to where they were asked for.
template <typename Use>
inline void with_dense(const Tensor& dq, const Tensor& dk, const Tensor& dv, Use use) {
  const Tensor wanted[] = {dq, dk, dv}, outs[] = {dense(dq), dense(dk), dense(dv)};
  use(outs[0], outs[1], outs[2]);
  for (int i = 0; i < 3; ++i)
    if (!outs[i].is_same(wanted[i])) wanted[i].copy_(outs[i]);
}

// Calls use(T()) with the type of sums.
template <typename Use>
inline void by_dtype(const Tensor& tau, Use use) {
  tau.scalar_type() == at::kDouble ? use(double()) : use(float());
}

}  // namespace taylorir
