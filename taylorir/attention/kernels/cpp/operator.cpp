// taylorir_cpp::forward and ::backward: TaylorShift attention on a CPU, as PyTorch calls it.
//
//   q [B, H, N, d]; k [B, H, M, d]; v [B, H, M, d_v]; tau [H]; labels of queries [B, N] and keys [B, M], int64, or
//   none: tokens attend within equal labels only. y and its gradient are [B, H, N, d_v]; sums, y, 1 / b [B, H, N, 1] and the
//   states have the dtype of tau: float64 for float64, else float32.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <map>
#include <numeric>
#include <optional>

#include "direct.h"
#include "efficient.h"

namespace taylorir {
namespace {

using at::Tensor;

// Tokens of one label: places in the order of queries and in that of keys.
struct Segment {
  int64_t query_begin, query_end, key_begin, key_end;
};

struct Pattern {
  std::vector<int64_t> queries, keys;  // tokens by label; empty: as they are
  std::vector<Segment> segments;
};

std::map<int64_t, std::vector<int64_t>> by_label(const int64_t* labels, int64_t size) {
  std::map<int64_t, std::vector<int64_t>> found;
  std::vector<int64_t>* last = nullptr;
  for (int64_t i = 0; i < size; ++i) {
    if (!last || labels[i] != labels[i - 1]) last = &found[labels[i]];
    last->push_back(i);
  }
  return found;
}

Pattern pattern_of(const int64_t* query, int64_t N, const int64_t* key, int64_t M) {
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

Tokens tokens_of(const Tensor& x, const Work& work, bool keys) {
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

// Whether sums of many columns are taken on the tile unit.
bool uses_tiles() {
#if defined(TAYLORIR_TILES)
  return have_tiles();
#else
  return false;
#endif
}

template <typename Form>
struct Type {
  using Is = Form;
};

// What a call works on. The sums of all parts of a work are taken in their order, so that results repeat.
template <typename T>
struct Call {
  const Plan& plan;
  Tensor q, k, v, tau;
  T scale;
  Tensor y, inverse, states;
  int64_t c = v.size(3) + 1, number = plan.works.size(), parts = plan.parts;

  T tau_of(const Work& work) const { return tau.data_ptr<T>()[work.head]; }

  // use(work, part, number of the work) in parallel, with memory of each thread
  template <typename Make, typename Use>
  void by_work(int64_t parts, Make make, Use use) const {
    at::parallel_for(0, number * parts, 1, [&](int64_t begin, int64_t end) {
      auto memory = make();
      for (int64_t i = begin; i < end; ++i) use(memory, plan.works[i / parts], i / parts, i % parts);
    });
  }

  void add_parts(const std::vector<T>& partial, T* out, int64_t size) const {
    at::parallel_for(0, number, 1, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g)
        for (int64_t p = 0; p < parts; ++p) {
          const T* from = &partial[(g * parts + p) * size];
          for (int64_t i = 0; i < size; ++i) out[g * size + i] = p ? out[g * size + i] + from[i] : from[i];
        }
    });
  }

  template <int64_t B>
  auto store_to(const Work& work, Block<T, B>& block) const {
    return [this, y = tokens_of(y, work, false), inverse = tokens_of(inverse, work, false), &block](
               int64_t first, int64_t count) { block.store_output(y, inverse, scale, first, count); };
  }

  template <int64_t B>
  auto load_from(const Work& work, const Tensor& dy, Block<T, B>& block) const {
    return [this, dy = tokens_of(dy, work, false), y = tokens_of(y, work, false),
            inverse = tokens_of(inverse, work, false), &block](int64_t first, int64_t count) {
      block.load_gradient(dy, y, inverse, scale, first, count);
    };
  }

  void forward_direct() const {
    by_work(parts, [&] { return Direct<T>(q.size(3), c, k.size(2), false); },
            [&](Direct<T>& form, const Work& work, int64_t, int64_t part) {
              const Tokens queries = tokens_of(q, work, false);
              const auto [begin, end] = part_of<T>(queries.count, part, parts);
              form.forward(queries, tokens_of(k, work, true), tokens_of(v, work, true), tau_of(work), begin, end,
                           store_to(work, form.block));
            });
  }

  template <typename Form>
  void forward_by() const {
    const Features f(q.size(3));
    const int64_t size = f.count * c;
    const auto make = [&] { return Form(f, c); };
    T* state = states.data_ptr<T>();
    std::vector<T> partial(parts > 1 ? number * parts * size : 0);
    by_work(parts, make, [&](Form& form, const Work& work, int64_t g, int64_t part) {
      const Tokens keys = tokens_of(k, work, true);
      const auto [begin, end] = part_of<T>(keys.count, part, parts);
      form.forward_keys(keys, tokens_of(v, work, true), begin, end,
                        parts > 1 ? &partial[(g * parts + part) * size] : state + g * size);
    });
    if (parts > 1) add_parts(partial, state, size);
    by_work(parts, make, [&](Form& form, const Work& work, int64_t g, int64_t part) {
      const Tokens queries = tokens_of(q, work, false);
      const auto [begin, end] = part_of<T>(queries.count, part, parts);
      form.weigh(state + g * size, tau_of(work), false);
      form.forward_queries(queries, begin, end, store_to(work, form.block));
    });
  }

  void backward_direct(const Tensor& dy, const Tensor& dq, const Tensor& dk, const Tensor& dv, T* dtau) const {
    by_work(1, [&] { return Direct<T>(q.size(3), c, k.size(2), true); },
            [&](Direct<T>& form, const Work& work, int64_t g, int64_t) {
              dtau[g] = form.backward(tokens_of(q, work, false), tokens_of(k, work, true), tokens_of(v, work, true),
                                      tau_of(work), load_from(work, dy, form.block), tokens_of(dq, work, false),
                                      tokens_of(dk, work, true), tokens_of(dv, work, true));
            });
  }

  // use(form) with the efficient form by the sums that serve best; tiles do from so many columns on
  template <typename Use>
  void by_sums(int64_t columns_for_tiles, Use use) const {
#if defined(TAYLORIR_TILES)
    if constexpr (std::is_same_v<T, float>)
      if (c >= columns_for_tiles && uses_tiles()) return use(Type<Efficient<TileSums>>());
#endif
    c <= MOST_COLUMNS ? use(Type<Efficient<NarrowSums<T>>>()) : use(Type<Efficient<WideSums<T>>>());
  }

  void forward_efficient() const {
    by_sums(14, [&](auto form) { forward_by<typename decltype(form)::Is>(); });
  }

  void backward_efficient(const Tensor& dy, const Tensor& dq, const Tensor& dk, const Tensor& dv, T* dtau) const {
    by_sums(17, [&](auto form) { backward_by<typename decltype(form)::Is>(dy, dq, dk, dv, dtau); });
  }

  template <typename Form>
  void backward_by(const Tensor& dy, const Tensor& dq, const Tensor& dk, const Tensor& dv, T* dtau) const {
    const Features f(q.size(3));
    const int64_t size = f.count * c;
    const auto make = [&] { return Form(f, c); };
    const T* state = states.data_ptr<T>();
    std::vector<T> dstate(number * size), partial(parts > 1 ? number * parts * size : 0);
    by_work(parts, make, [&](Form& form, const Work& work, int64_t g, int64_t part) {
      const Tokens queries = tokens_of(q, work, false);
      const auto [begin, end] = part_of<T>(queries.count, part, parts);
      form.weigh(state + g * size, tau_of(work), true);
      form.backward_queries(queries, begin, end, load_from(work, dy, form.block), tokens_of(dq, work, false),
                            parts > 1 ? &partial[(g * parts + part) * size] : &dstate[g * size]);
    });
    if (parts > 1) add_parts(partial, dstate.data(), size);
    by_work(parts, make, [&](Form& form, const Work& work, int64_t g, int64_t part) {
      const Tokens keys = tokens_of(k, work, true);
      const auto [begin, end] = part_of<T>(keys.count, part, parts);
      const T* from = &dstate[g * size];
      form.weigh(from, tau_of(work), true);
      form.backward_keys(keys, tokens_of(v, work, true), begin, end, tokens_of(dk, work, true),
                         tokens_of(dv, work, true));
      if (part == 0) {
        double total = 0;  // terms of either sign, of which little is left
        f.weigh(tau_of(work), [&](int64_t i, T, T derivative) {
          for (int64_t j = 0; j < c; ++j) total += double(derivative) * state[g * size + i * c + j] * from[i * c + j];
        });
        dtau[g] = static_cast<T>(total);
      }
    });
  }
};

Tensor dense(const Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

// Calls use(T()) with the type of sums.
template <typename Use>
void by_dtype(const Tensor& tau, Use use) {
  tau.scalar_type() == at::kDouble ? use(double()) : use(float());
}

Tensor forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& tau,
               const std::optional<Tensor>& query_labels, const std::optional<Tensor>& key_labels, double scale,
               bool efficient, const Tensor& y, const Tensor& inverse) {
  const Plan plan(q, k, query_labels, key_labels);
  const int64_t d = q.size(3), works = efficient ? plan.works.size() : 0;
  const Tensor states = at::empty({works, (d + 1) * (d + 2) / 2, v.size(3) + 1}, tau.options());
  const Tensor out = dense(y);
  by_dtype(tau, [&](auto t) {
    using T = decltype(t);
    const Call<T> call{plan, dense(q), dense(k), dense(v), tau.contiguous(), static_cast<T>(scale), out,
                       inverse, states};
    efficient ? call.forward_efficient() : call.forward_direct();
  });
  if (!out.is_same(y)) y.copy_(out);
  return states;
}

Tensor backward(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& tau,
                const std::optional<Tensor>& query_labels, const std::optional<Tensor>& key_labels, double scale,
                bool efficient, const Tensor& y, const Tensor& inverse, const Tensor& states, const Tensor& dq,
                const Tensor& dk, const Tensor& dv) {
  const Plan plan(q, k, query_labels, key_labels);
  const Tensor outs[] = {dense(dq), dense(dk), dense(dv)}, from = dense(dy), dtau = at::zeros_like(tau);
  by_dtype(tau, [&](auto t) {
    using T = decltype(t);
    const Call<T> call{plan,  dense(q), dense(k), dense(v), tau.contiguous(), static_cast<T>(scale), dense(y),
                       inverse, states};
    std::vector<T> dtaus(call.number);
    efficient ? call.backward_efficient(from, outs[0], outs[1], outs[2], dtaus.data())
              : call.backward_direct(from, outs[0], outs[1], outs[2], dtaus.data());
    for (int64_t g = 0; g < call.number; ++g) dtau.data_ptr<T>()[plan.works[g].head] += dtaus[g];
  });
  const Tensor* gradients[] = {&dq, &dk, &dv};
  for (int i = 0; i < 3; ++i)
    if (!outs[i].is_same(*gradients[i])) gradients[i]->copy_(outs[i]);
  return dtau;
}

// y for q, k and v [.., H, N, d] of one shape, where no derivative is asked for; undefined if this does not serve them.
// The temperature is a tensor [H] or, without one, the same number for all heads.
Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& temperature,
              double factor, bool scale_output, double crossover) {
  const at::ScalarType type = q.scalar_type();
  const bool served = type == at::kDouble || type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
  if (!served || q.dim() < 3 || q.numel() == 0) return {};
  for (const Tensor& x : {q, k, v})
    if (x.layout() != at::kStrided || x.scalar_type() != type || !x.sizes().equals(q.sizes())) return {};
  const int64_t heads = q.size(-3), tokens = q.size(-2);
  const auto options = q.options().dtype(type == at::kDouble ? at::kDouble : at::kFloat);
  if (temperature && (temperature->dtype() != options.dtype() || !temperature->sizes().equals(heads))) return {};
  const Tensor tau = temperature ? *temperature : at::full({heads}, factor, options);
  const auto windows = [&](const Tensor& x) { return x.dim() == 3 ? x.unsqueeze(0) : x.flatten(0, x.dim() - 4); };
  const Tensor queries = windows(q), values = windows(v), y = at::empty_like(values);
  const Tensor inverse = at::empty({y.size(0), heads, tokens, 1}, options);
  const double scale = scale_output ? std::sqrt(double(tokens) / q.size(-1)) : 1;
  forward(queries, windows(k), values, tau, {}, {}, scale, tokens >= crossover, y, inverse);
  return y.view(q.sizes());
}

}  // namespace

TORCH_LIBRARY(taylorir_cpp, m) {
  m.def("uses_tiles() -> bool", uses_tiles);
  m.def(
      "attend(Tensor q, Tensor k, Tensor v, Tensor? temperature, float factor, bool scale_output, float crossover) "
      "-> Tensor");
  m.def(
      "forward(Tensor q, Tensor k, Tensor v, Tensor tau, Tensor? query_labels, Tensor? key_labels, float scale, "
      "bool efficient, Tensor(a!) y, Tensor(b!) inverse) -> Tensor");
  m.def(
      "backward(Tensor dy, Tensor q, Tensor k, Tensor v, Tensor tau, Tensor? query_labels, Tensor? key_labels, "
      "float scale, bool efficient, Tensor y, Tensor inverse, Tensor states, Tensor(a!) dq, Tensor(b!) dk, "
      "Tensor(c!) dv) -> Tensor");
}

TORCH_LIBRARY_IMPL(taylorir_cpp, CPU, m) {
  m.impl("attend", attend);
  m.impl("forward", forward);
  m.impl("backward", backward);
}

}  // namespace taylorir
