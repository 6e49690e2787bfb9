// Products of float32 on the tile unit of x86 processors (AMX), which multiplies bfloat16 and adds float32.
//
// A float32 of 24 bits is the sum of three bfloat16 of 8 bits each, exactly: high, middle and low. Of the nine products
// of parts of two numbers six are taken; the three others are below 2^-22 of the whole, about what float32 rounds off.
// The unit multiplies 16 times as many numbers in a time as the registers do, so with six products it is 2.6 times as
// fast.
//
// Shape legend
//   Split    16 rows of 16 pairs, in three parts; the unit sums over both numbers of all pairs
//   product  out[16, 16] += sum over p and both numbers of pair p of a[row, p] b[p, column]
#pragma once

#if defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__AVX512F__) && defined(__linux__)
#define TAYLORIR_TILES 1

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace taylorir {

// Across a call the compiler would take the numbers between products out of their registers.
#define ALWAYS __attribute__((always_inline))
constexpr int64_t SIDE = 16, PAIRED = 2 * SIDE;  // rows of a tile and pairs of a row; numbers of a row

struct alignas(64) Split {
  uint32_t parts[3][SIDE][SIDE];
};

// Cut the pairs (x, y) into a row of a split.
ALWAYS inline void split_pairs(__m512 x, __m512 y, Split& to, int64_t row) {
  const __m512i upper = _mm512_set1_epi32(int(0xffff0000));
#pragma GCC unroll 3
  for (int part = 0; part < 3; ++part) {
    const __m512i x_upper = _mm512_and_si512(_mm512_castps_si512(x), upper);
    const __m512i y_upper = _mm512_and_si512(_mm512_castps_si512(y), upper);
    _mm512_store_si512(to.parts[part][row], _mm512_or_si512(y_upper, _mm512_srli_epi32(_mm512_castps_si512(x), 16)));
    x -= _mm512_castsi512_ps(x_upper);
    y -= _mm512_castsi512_ps(y_upper);
  }
}

// Whether the processor has the unit and the system lets this process use it. TAYLORIR_TILES=0 does without.
inline bool have_tiles() {
  static const bool permitted = [] {
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM of arch_prctl
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
  }();
  const char* wanted = std::getenv("TAYLORIR_TILES");
  return permitted && !(wanted && std::strcmp(wanted, "0") == 0);
}

// All tiles of 16 rows of 64 bytes, for as long as this lives; what was set before is set again behind it.
class Tiles {
  struct alignas(64) Config {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } before;

 public:
  Tiles() {
    Config config;
    for (int tile = 0; tile < 8; ++tile) config.bytes[tile] = 4 * SIDE, config.rows[tile] = SIDE;
    _tile_storeconfig(&before);
    _tile_loadconfig(&config);
  }
  ~Tiles() { before.palette ? _tile_loadconfig(&before) : _tile_release(); }
  Tiles(const Tiles&) = delete;
};

// The intrinsics want numbers of tiles as literals, and do not tell the compiler which memory they read.
inline void memory_is_written() { std::atomic_signal_fence(std::memory_order_seq_cst); }

// The registers have nothing to do while the unit multiplies, so between(0) .. between(5) come in between.
constexpr int PRODUCTS = 6;
#define TAYLORIR_PRODUCT(SUM, a, b, between) \
  do {                                       \
    _tile_loadd(5, (b).parts[0], 64);        \
    _tile_loadd(4, (a).parts[2], 64);        \
    _tile_dpbf16ps(SUM, 4, 5);               \
    between(0);                              \
    _tile_loadd(6, (b).parts[1], 64);        \
    _tile_loadd(4, (a).parts[1], 64);        \
    _tile_dpbf16ps(SUM, 4, 6);               \
    between(1);                              \
    _tile_dpbf16ps(SUM, 4, 5);               \
    between(2);                              \
    _tile_loadd(7, (b).parts[2], 64);        \
    _tile_loadd(4, (a).parts[0], 64);        \
    _tile_dpbf16ps(SUM, 4, 7);               \
    between(3);                              \
    _tile_dpbf16ps(SUM, 4, 6);               \
    between(4);                              \
    _tile_dpbf16ps(SUM, 4, 5);               \
    between(5);                              \
  } while (false)

// use(tile) for the tile of a sum, 0 to 3
#define TAYLORIR_OF_SUM(use)            \
  do {                                  \
    if constexpr (SUM == 0) { use(0); } \
    if constexpr (SUM == 1) { use(1); } \
    if constexpr (SUM == 2) { use(2); } \
    if constexpr (SUM == 3) { use(3); } \
  } while (false)

template <int SUM>
inline void zero_sum() {
  TAYLORIR_OF_SUM(_tile_zero);
}
template <int SUM>
inline void load_sum(const float* from, int64_t step) {
  memory_is_written();
#define TAYLORIR_LOAD(tile) _tile_loadd(tile, from, 4 * step)
  TAYLORIR_OF_SUM(TAYLORIR_LOAD);
#undef TAYLORIR_LOAD
}
template <int SUM>
inline void store_sum(float* to, int64_t step) {
#define TAYLORIR_STORE(tile) _tile_stored(tile, to, 4 * step)
  TAYLORIR_OF_SUM(TAYLORIR_STORE);
#undef TAYLORIR_STORE
  memory_is_written();
}
template <int SUM, typename Between>
ALWAYS inline void add_product(const Split& a, const Split& b, Between between) {
  memory_is_written();
#define TAYLORIR_ADD(tile) TAYLORIR_PRODUCT(tile, a, b, between)
  TAYLORIR_OF_SUM(TAYLORIR_ADD);
#undef TAYLORIR_ADD
  memory_is_written();
}

}  // namespace taylorir

#endif
