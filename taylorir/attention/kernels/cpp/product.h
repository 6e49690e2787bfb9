// A product of small matrices in vector registers, and a transpose: what the CPU kernels spend their time in.
//
// Shape legend
//   W      numbers of a register
//   BLOCK  tokens that are worked on at once: TOKEN_VECTORS registers
#pragma once

#include <algorithm>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace taylorir {

#define TILE __attribute__((noinline))  // one copy of each size, which compiles quickly

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, TOKEN_VECTORS = 4, ACCUMULATORS = 24;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, TOKEN_VECTORS = 2, ACCUMULATORS = 12;
#else
constexpr int VECTOR_BYTES = 16, TOKEN_VECTORS = 4, ACCUMULATORS = 24;
#endif

// GCC takes a register's numbers from anywhere; clang forgets "aligned" where the type depends on a parameter, so what at()
// is used on begins a register everywhere.
template <typename T>
struct Vector {
  typedef T type __attribute__((vector_size(VECTOR_BYTES), aligned(alignof(T)), may_alias));
};
template <typename T>
using vec = typename Vector<T>::type;
template <typename T>
constexpr int W = VECTOR_BYTES / sizeof(T);
template <typename T>
constexpr int BLOCK = TOKEN_VECTORS * W<T>;

// Memory whose first number begins a register: one that lies across two lines of the cache takes twice the time.
template <typename T>
struct Aligned {
  using value_type = T;
  static constexpr std::align_val_t LINE{64};
  Aligned() = default;
  template <typename U>
  Aligned(const Aligned<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), LINE)); }
  void deallocate(T* from, size_t) { ::operator delete(from, LINE); }
  bool operator==(const Aligned&) const { return true; }
  bool operator!=(const Aligned&) const { return false; }
};
template <typename T>
using Numbers = std::vector<T, Aligned<T>>;

// use(integral_constant of number) for a number from 1 to MOST that is known only now
template <int MOST, typename Use>
inline void as_constant(int64_t number, Use use) {
  if constexpr (MOST > 0) {
    if (number == MOST)
      use(std::integral_constant<int, MOST>());
    else
      as_constant<MOST - 1>(number, use);
  }
}

constexpr int MAX_ROWS = 12;  // of a tile of the product

template <typename T>
inline vec<T>& at(T* x) { return *reinterpret_cast<vec<T>*>(x); }
template <typename T>
inline const vec<T>& at(const T* x) { return *reinterpret_cast<const vec<T>*>(x); }

// out[m, :] = sum_k a[m, k] x[k, :] for M rows and V registers of columns, or with ADD that more.
template <bool ADD, int64_t ROW, int V, int M, typename T>
TILE void product_tile(int64_t K, const T* a, int64_t a_step, const T* x, int64_t x_step, T* out, int64_t out_step) {
  vec<T> sum[M][V];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[m][v] = vec<T>{};
  for (int64_t k = 0; k < K; ++k, a += a_step, x += x_step) {
    vec<T> column[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) column[v] = at(x + v * W<T>);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[m][v] += a[m * ROW] * column[v];
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      vec<T>& to = at(out + m * out_step + v * W<T>);
      to = ADD ? to + sum[m][v] : sum[m][v];
    }
}

// out[M, columns] = a[M, K] x[K, columns], or with ADD that more; columns are a multiple of W. The rows of a lie ROW
// apart (1: a is stored transposed), its columns a_step; out and x have rows of out_step and x_step numbers.
template <bool ADD, int64_t ROW, typename T>
inline void product(int64_t M, int64_t columns, int64_t K, const T* a, int64_t a_step, const T* x, int64_t x_step,
                    T* out, int64_t out_step) {
  for (int64_t first = 0; first < columns; first += TOKEN_VECTORS * W<T>)
    as_constant<TOKEN_VECTORS>(std::min<int64_t>((columns - first) / W<T>, TOKEN_VECTORS), [&](auto V) {
      constexpr int MOST = std::min(MAX_ROWS, ACCUMULATORS / V);
      const int64_t tiles = (M + MOST - 1) / MOST;  // of nearly equal size, so that none has too few sums to wait for
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t m = M * t / tiles;
        as_constant<MOST>(M * (t + 1) / tiles - m, [&](auto rows) {
          product_tile<ADD, ROW, V, rows>(K, a + m * ROW, a_step, x + first, x_step, out + m * out_step + first,
                                          out_step);
        });
      }
    });
}

template <typename T>
inline int64_t padded(int64_t size) { return (size + W<T> - 1) / W<T> * W<T>; }

// A transpose exchanges numbers bit by bit of their places: of a pair of rows H apart, those of the lower one in columns
// with bit H for those of the upper one in columns without it.
template <int H, typename T, size_t... C>
inline void exchange(vec<T>& lower, vec<T>& upper, std::index_sequence<C...>) {
  constexpr int N = sizeof...(C);
  const vec<T> a = lower, b = upper;
#if defined(__clang__)
  lower = __builtin_shufflevector(a, b, (C & H ? N + C - H : C)...);
  upper = __builtin_shufflevector(a, b, (C & H ? N + C : C + H)...);
#else
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef Index Places __attribute__((vector_size(VECTOR_BYTES)));
  lower = __builtin_shuffle(a, b, Places{Index(C & H ? N + C - H : C)...});
  upper = __builtin_shuffle(a, b, Places{Index(C & H ? N + C : C + H)...});
#endif
}

template <int H, typename T>
inline void exchange_all(vec<T>* rows) {
  if constexpr (H < W<T>) {
#pragma GCC unroll 16
    for (int r = 0; r < W<T>; ++r)
      if (!(r & H)) exchange<H, T>(rows[r], rows[r + H], std::make_index_sequence<W<T>>());
    exchange_all<2 * H, T>(rows);
  }
}

// to[c, r] = from[r, c]; numbers of rows and columns are multiples of W.
template <typename T>
inline void transpose(const T* from, int64_t from_step, int64_t rows, int64_t columns, T* to, int64_t to_step) {
  for (int64_t r = 0; r < rows; r += W<T>)
    for (int64_t c = 0; c < columns; c += W<T>) {
      vec<T> tile[W<T>];
#pragma GCC unroll 16
      for (int i = 0; i < W<T>; ++i) tile[i] = at(from + (r + i) * from_step + c);
      exchange_all<1, T>(tile);
#pragma GCC unroll 16
      for (int i = 0; i < W<T>; ++i) at(to + (c + i) * to_step + r) = tile[i];
    }
}

}  // namespace taylorir
