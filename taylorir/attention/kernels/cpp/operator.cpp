// taylorir_cpp::forward and ::backward: TaylorShift attention on a CPU, as PyTorch calls it.
//
//   q [B, H, N, d]; k [B, H, M, d]; v [B, H, M, d_v]; tau [H]; labels of queries [B, N] and keys [B, M], int64, or
//   none: tokens attend within equal labels only. y and its gradient are [B, H, N, d_v]; sums, y, 1 / b [B, H, N, 1] and the
//   states have the dtype of tau: float64 for float64, else float32.
#include <torch/library.h>

#include <memory>

#include "direct.h"
#include "efficient.h"
#include "plan.h"

namespace taylorir {
namespace {

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

// The efficient form for heads of d channels and c columns, as long as a thread works with it. The thread keeps its
// memory for the next call: to ask for it anew takes time that a single window notices.
template <typename Form>
struct OfThread {
  typename Form::Setting setting;
  Form& form;
  operator Form&() { return form; }

  static OfThread get(int64_t d, int64_t c) {
    struct Kept {
      int64_t d, c;
      Features features{d};
      Form form{features, c};
    };
    static thread_local std::unique_ptr<Kept> kept;
    if (!kept || kept->d != d || kept->c != c) kept.reset(new Kept{d, c});
    return {{}, kept->form};
  }
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

  // use(memory, work, number of the work, part) in parallel, with memory of each thread
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
    const auto make = [&] { return OfThread<Form>::get(q.size(3), c); };
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
    const auto make = [&] { return OfThread<Form>::get(q.size(3), c); };
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
  const Tensor from = dense(dy), dtau = at::zeros_like(tau);
  with_dense(dq, dk, dv, [&](const Tensor& dq, const Tensor& dk, const Tensor& dv) {
    by_dtype(tau, [&](auto t) {
      using T = decltype(t);
      const Call<T> call{plan,  dense(q), dense(k), dense(v), tau.contiguous(), static_cast<T>(scale), dense(y),
                         inverse, states};
      std::vector<T> dtaus(call.number);
      efficient ? call.backward_efficient(from, dq, dk, dv, dtaus.data())
                : call.backward_direct(from, dq, dk, dv, dtaus.data());
      for (int64_t g = 0; g < call.number; ++g) dtau.data_ptr<T>()[plan.works[g].head] += dtaus[g];
    });
  });
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
