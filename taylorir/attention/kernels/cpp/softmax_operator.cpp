// taylorir_cpp::softmax_forward and ::softmax_backward: softmax attention on a CPU, as PyTorch calls it.
//
//   q [B, H, N, d]; k [B, H, M, d]; v [B, H, M, d_v]; bias [H, N, M] or none; labels of queries [G, N] and keys [G, M],
//   int64, or none: tokens attend within equal labels only, window b by those of b modulo G. y [B, H, N, d_v] and the
//   logarithms of sums of weights [B, H, N, 1] have the dtype of sums: float64 for float64, else float32.
#include <torch/library.h>

#include "plan.h"
#include "softmax.h"

namespace taylorir {
namespace {

// Labels as numbers from 0 on, [G, a whole number of registers], and which windows have more than one.
template <typename T>
struct Ranks {
  Numbers<Whole<T>> of_queries, of_keys;
  std::vector<bool> differ;
  int64_t number = 0, query_step = 0, key_step = 0;

  Ranks(const std::optional<Tensor>& queries, const std::optional<Tensor>& keys) {
    if (!queries) return;
    number = queries->size(0);
    std::map<int64_t, Whole<T>> found;
    const auto ranks = [&](const Tensor& labels, int64_t& step) {
      const Tensor own = labels.contiguous();
      step = padded<T>(own.size(1));
      Numbers<Whole<T>> out(number * step);
      for (int64_t g = 0; g < number; ++g)
        for (int64_t t = 0; t < own.size(1); ++t)
          out[g * step + t] = found.try_emplace(own.data_ptr<int64_t>()[g * own.size(1) + t], found.size()).first->second;
      return out;
    };
    of_queries = ranks(*queries, query_step), of_keys = ranks(*keys, key_step);
    for (int64_t g = 0; g < number; ++g) {
      const auto other = [first = of_queries[g * query_step]](Whole<T> label) { return label != first; };
      const auto query = of_queries.begin() + g * query_step, key = of_keys.begin() + g * key_step;
      differ.push_back(std::any_of(query, query + queries->size(1), other) ||
                       std::any_of(key, key + keys->size(1), other));
    }
  }
};

constexpr int64_t WINDOWS_TO_TURN = 8;  // from so many windows on the bias is turned once, else for each

template <typename T>
struct SoftmaxCall {
  const Plan plan;
  Tensor q, k, v;
  T scale;
  Tensor y, logs;
  const Ranks<T> ranks;
  int64_t heads = q.size(1), windows = q.size(0), keys = k.size(2), step = padded<T>(q.size(2)), c = v.size(3) + 1;
  Tensor own_bias = Tensor(), turned = Tensor();  // [H, N, M]; [H, M, step], where it is turned once for all windows

  SoftmaxCall(const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& bias,
              const std::optional<Tensor>& query_labels, const std::optional<Tensor>& key_labels, double scale,
              const Tensor& y, const Tensor& logs)
      : plan(q, k, {}, {}), q(dense(q)), k(dense(k)), v(dense(v)), scale(static_cast<T>(scale)), y(y), logs(logs),
        ranks(query_labels, key_labels) {
    if (!bias) return;
    own_bias = dense(bias->to(logs.scalar_type()));
    if (windows < WINDOWS_TO_TURN) return;
    turned = at::empty({heads, keys, step}, logs.options());
    const Tensor from = own_bias.unsqueeze(0);
    at::parallel_for(0, heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t h = begin; h < end; ++h) {
        const Tokens rows = tokens_of(from, {0, h, &plan.patterns[0], {0, from.size(2), 0, 0}}, false);
        load_rows(rows, 0, rows.count, turned.data_ptr<T>() + h * keys * step, step);
      }
    });
  }

  Added<T> added(const Work& work) const {
    Added<T> out{nullptr, step, true, q.size(2), nullptr, nullptr};
    if (turned.defined()) {
      out.bias = turned.data_ptr<T>() + work.head * keys * step;
    } else if (own_bias.defined()) {
      out.bias = own_bias.data_ptr<T>() + work.head * own_bias.stride(0);
      out.step = own_bias.stride(1), out.turned = false;
    }
    const int64_t g = ranks.number ? work.window % ranks.number : 0;
    if (ranks.number && ranks.differ[g])
      out.query_labels = &ranks.of_queries[g * ranks.query_step], out.key_labels = &ranks.of_keys[g * ranks.key_step];
    return out;
  }

  void forward() const {
    const int64_t number = plan.works.size(), parts = plan.parts;
    at::parallel_for(0, number * parts, 1, [&](int64_t begin, int64_t end) {
      Softmax<T> form(q.size(3), c, keys, false);
      for (int64_t i = begin; i < end; ++i) {
        const Work& work = plan.works[i / parts];
        const Tokens queries = tokens_of(q, work, false);
        const auto [first, last] = part_of<T>(queries.count, i % parts, parts);
        form.forward(queries, tokens_of(k, work, true), tokens_of(v, work, true), scale, added(work), first, last,
                     tokens_of(y, work, false), tokens_of(logs, work, false));
      }
    });
  }

  // A head's windows are shared out among so many threads that all have work; their parts of the bias' gradient are
  // added in one order, so that results repeat.
  void backward(const Tensor& dy, const Tensor& dq, const Tensor& dk, const Tensor& dv,
                const std::optional<Tensor>& dbias) const {
    const int64_t threads = at::get_num_threads();
    const int64_t shares = dbias ? std::min(windows, (threads + heads - 1) / heads) : windows;
    const Tensor sums = dbias ? at::zeros({shares, heads, keys, step}, logs.options()) : Tensor();
    at::parallel_for(0, shares * heads, 1, [&](int64_t begin, int64_t end) {
      Softmax<T> form(q.size(3), c, keys, true);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t share = i / heads, head = i % heads;
        T* sum = dbias ? sums.data_ptr<T>() + i * keys * step : nullptr;
        for (int64_t b = windows * share / shares; b < windows * (share + 1) / shares; ++b) {
          const Work& work = plan.works[b * heads + head];
          form.backward(tokens_of(q, work, false), tokens_of(k, work, true), tokens_of(v, work, true), scale,
                        added(work), tokens_of(dy, work, false), tokens_of(y, work, false),
                        tokens_of(logs, work, false), tokens_of(dq, work, false), tokens_of(dk, work, true),
                        tokens_of(dv, work, true), sum);
        }
      }
    });
    if (!dbias) return;
    const Tensor sum = shares > 1 ? sums.sum(0) : sums, to = dbias->unsqueeze(0);
    at::parallel_for(0, heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t h = begin; h < end; ++h) {
        const Tokens rows = tokens_of(to, {0, h, &plan.patterns[0], {0, to.size(2), 0, 0}}, false);
        store_rows(sum.data_ptr<T>() + h * keys * step, step, rows, 0, rows.count);
      }
    });
  }
};

void softmax_forward(const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& bias,
                     const std::optional<Tensor>& query_labels, const std::optional<Tensor>& key_labels, double scale,
                     const Tensor& y, const Tensor& logs) {
  const Tensor out = dense(y);
  by_dtype(logs, [&](auto t) {
    SoftmaxCall<decltype(t)>(q, k, v, bias, query_labels, key_labels, scale, out, logs).forward();
  });
  if (!out.is_same(y)) y.copy_(out);
}

void softmax_backward(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                      const std::optional<Tensor>& bias, const std::optional<Tensor>& query_labels,
                      const std::optional<Tensor>& key_labels, double scale, const Tensor& y, const Tensor& logs,
                      const Tensor& dq, const Tensor& dk, const Tensor& dv, const std::optional<Tensor>& dbias) {
  with_dense(dq, dk, dv, [&](const Tensor& dq, const Tensor& dk, const Tensor& dv) {
    by_dtype(logs, [&](auto t) {
      SoftmaxCall<decltype(t)>(q, k, v, bias, query_labels, key_labels, scale, dense(y), logs)
          .backward(dense(dy), dq, dk, dv, dbias);
    });
  });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(taylorir_cpp, m) {
  m.def(
      "softmax_forward(Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? query_labels, Tensor? key_labels, "
      "float scale, Tensor(a!) y, Tensor(b!) logs) -> ()");
  m.def(
      "softmax_backward(Tensor dy, Tensor q, Tensor k, Tensor v, Tensor? bias, Tensor? query_labels, "
      "Tensor? key_labels, float scale, Tensor y, Tensor logs, Tensor(a!) dq, Tensor(b!) dk, Tensor(c!) dv, "
      "Tensor(d!)? dbias) -> ()");
}

TORCH_LIBRARY_IMPL(taylorir_cpp, CPU, m) {
  m.impl("softmax_forward", softmax_forward);
  m.impl("softmax_backward", softmax_backward);
}

}  // namespace taylorir
