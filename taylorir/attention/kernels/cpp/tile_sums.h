// Sums of features on the tile unit, in place of those of register_sums.h where the processor has one.
//
// Shape legend
//   group     16 features
//   columns   in groups of 16; as a sum over columns in steps of 32, whose numbers p and p + 16 are a pair
//   tokens    of a block: as a sum over tokens in steps of 32, whose tokens p and p + 16 are a pair
#pragma once

#include "register_sums.h"
#include "tiles.h"

#if defined(TAYLORIR_TILES)

namespace taylorir {

// Cuts 16 rows into shares, one for each product of a number of tiles.
struct Shares {
  std::vector<int32_t> begins;
  explicit Shares(int64_t tiles) {
    for (int64_t i = 0; i <= tiles * PRODUCTS; ++i) begins.push_back(SIDE * i / (tiles * PRODUCTS));
  }
  // use(first row, last row + 1) of the share that is a product's of a tile
  template <typename Use>
  ALWAYS inline auto of(int64_t tile, Use use) const {
    const int32_t* from = &begins[tile * PRODUCTS];
    return [use, from](int product) ALWAYS { use(from[product], from[product + 1]); };
  }
};

struct TileSums {
  using Number = float;
  using Setting = Tiles;
  static constexpr int64_t B = BLOCK<float>, STEPS = B / PAIRED;
  const Features& f;
  int64_t c, wide = (c + PAIRED - 1) / PAIRED * PAIRED;
  int64_t columns_of_tiles = (c + SIDE - 1) / SIDE, groups = (f.count + PAIRED - 1) / PAIRED * 2;
  std::vector<std::pair<int32_t, int32_t>> factors;  // places of the rows of each feature
  Numbers<float> state;                              // [groups, columns of tiles] tiles
  Numbers<float> weighted, turned;                   // [features, wide], and transposed
  std::vector<Split, Aligned<Split>> values;         // [columns of tiles, STEPS]
  std::vector<Split, Aligned<Split>> to_read;        // [groups / 2, columns of tiles]
  std::vector<Split, Aligned<Split>> to_pull;        // [groups, wide / 32]
  std::vector<Split, Aligned<Split>> gradient;       // [tokens of a block / 16, wide / 32]
  Split made[2][STEPS];                              // features that are made while others are multiplied
  alignas(64) float dfeatures[4][SIDE][SIDE];
  Shares by_column{columns_of_tiles}, by_step{wide / PAIRED}, by_two{2}, by_one{1};

  TileSums(const Features& f, int64_t c)
      : f(f), c(c), state(groups * columns_of_tiles * SIDE * SIDE), weighted(groups * SIDE * wide),
        turned(weighted.size()), values(columns_of_tiles * STEPS), to_read(groups / 2 * columns_of_tiles),
        to_pull(groups * wide / PAIRED), gradient(B / SIDE * wide / PAIRED) {
    for (int64_t i = 0; i < groups * SIDE; ++i) {
      const auto [a, b] = f.factors[std::min(i, f.count)];
      factors.push_back({a * B, b * B});
    }
  }

  void begin() { std::fill(state.begin(), state.end(), 0.f); }

  void load_values(Block<float, B>& block, const Tokens& v, int64_t first, int64_t count) {
    block.load_value_tokens(v, first, count);
  }
  void take_rows(Block<float, B>& block) { block.columns_to_tokens(c); }

  void add(Block<float, B>& block, int64_t count, int64_t columns, const Coming&) {
    const int64_t step = padded<float>(c), steps = (count + PAIRED - 1) / PAIRED, end = steps * PAIRED;
    std::fill(block.column_tokens.data() + count * step, block.column_tokens.data() + end * step, 0.f);
    for (int64_t i = 0; i < f.n; ++i)  // what another block has left there, NaN perhaps
      std::fill(block.rows.data() + i * B + columns, block.rows.data() + i * B + end, 0.f);
    for (int64_t column = 0; column < columns_of_tiles; ++column)
      for (int64_t s = 0; s < steps; ++s)
        for (int64_t p = 0; p < SIDE; ++p) {
          const float* from = &block.column_tokens[(s * PAIRED + p) * step + column * SIDE];
          split_pairs(_mm512_loadu_ps(from), _mm512_loadu_ps(from + SIDE * step), values[column * STEPS + s], p);
        }
    const int64_t used = (f.count + SIDE - 1) / SIDE;
    const float* rows = block.rows.data();
    for (int64_t s = 0; s < steps; ++s) make_features(rows, 0, s, 0, SIDE);
    for (int64_t g = 0; g < used; ++g) {
      for (int64_t column = 0; column < columns_of_tiles; ++column) {
        float* sum = &state[(g * columns_of_tiles + column) * SIDE * SIDE];
        load_sum<0>(sum, SIDE);
        for (int64_t s = 0; s < steps; ++s) {
          const auto make = [&](int64_t from, int64_t to) ALWAYS {
            if (g + 1 < used) make_features(rows, g + 1, s, from, to);
          };
          add_product<0>(made[g % 2][s], values[column * STEPS + s], by_column.of(column, make));
        }
        store_sum<0>(sum, SIDE);
      }
    }
  }

  void store(float* out) const {
    for (int64_t i = 0; i < f.count; ++i)
      for (int64_t j = 0; j < c; j += SIDE)
        std::copy_n(&state[((i / SIDE * columns_of_tiles + j / SIDE) * SIDE + i % SIDE) * SIDE],
                    std::min(SIDE, c - j), out + i * c + j);
  }

  void weigh(const float* from, float tau, bool backward) {
    f.weigh(tau, [&](int64_t i, float weight, float) {
      for (int64_t j = 0; j < c; ++j) weighted[i * wide + j] = weight * from[i * c + j];
    });
    transpose(weighted.data(), wide, groups * SIDE, wide, turned.data(), groups * SIDE);
    for (int64_t g = 0; g < groups / 2; ++g)
      for (int64_t column = 0; column < columns_of_tiles; ++column)
        for (int64_t j = 0; j < SIDE; ++j) {
          const float* row = &turned[(column * SIDE + j) * groups * SIDE + g * PAIRED];
          split_pairs(_mm512_loadu_ps(row), _mm512_loadu_ps(row + SIDE), to_read[g * columns_of_tiles + column], j);
        }
    if (!backward) return;
    const int64_t steps = wide / PAIRED;
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t s = 0; s < steps; ++s)
        for (int64_t i = 0; i < SIDE; ++i) {
          const float* row = &weighted[(g * SIDE + i) * wide + s * PAIRED];
          split_pairs(_mm512_loadu_ps(row), _mm512_loadu_ps(row + SIDE), to_pull[g * steps + s], i);
        }
  }

  void read(Block<float, B>& block, int64_t columns, int64_t width, const Coming&) {
    const int64_t of_tiles = (width + SIDE - 1) / SIDE;
    for (int64_t t = 0; t < columns; t += PAIRED)
      for (int64_t first = 0; first < of_tiles; first += 2)
        first + 1 < of_tiles ? read_columns<2>(block, t, first) : read_columns<1>(block, t, first);
  }

  void pull_back(const Block<float, B>& block, int64_t columns, float* drows) {
    const int64_t steps = wide / PAIRED;
    const float* from = block.column_rows.data();
    for (int64_t t = 0; t < columns; t += SIDE)
      for (int64_t s = 0; s < steps; ++s)
        for (int64_t p = 0; p < SIDE; ++p) {
          const int64_t j = s * PAIRED + p;
          split_pairs(column(from, j, t), column(from, j + SIDE, t), gradient[t / SIDE * steps + s], p);
        }
    const int64_t used = (f.count + SIDE - 1) / SIDE, tiles_of_tokens = (columns + SIDE - 1) / SIDE;
    // A tile that was stored can be loaded some time later, so its gradients are added LAG tiles behind.
    constexpr int64_t LAG = 2;
    const int64_t tiles = used * tiles_of_tokens;
    int64_t g = 0, t = 0, late_g = 0, late_t = 0;
    for (int64_t i = 0; i < tiles + LAG; ++i) {
      const auto add = [&](int64_t from, int64_t to) ALWAYS {
        if (i >= LAG)
          add_gradient(block.rows.data() + late_t * SIDE, late_g, i - LAG, from, to, drows + late_t * SIDE);
      };
      if (i < tiles) {
        zero_sum<0>();
        for (int64_t s = 0; s < steps; ++s)
          add_product<0>(to_pull[g * steps + s], gradient[t * steps + s], by_step.of(s, add));
        store_sum<0>(dfeatures[i % 4][0], SIDE);
        if (++t == tiles_of_tokens) t = 0, ++g;
      } else {
        add(0, SIDE);
      }
      if (i >= LAG && ++late_t == tiles_of_tokens) late_t = 0, ++late_g;
    }
  }

 private:
  __m512 column(const float* rows, int64_t j, int64_t t) const {
    return j < c ? _mm512_loadu_ps(rows + j * B + t) : _mm512_setzero_ps();
  }

  // Features of a group, from one to another, to be summed over a step of tokens.
  ALWAYS inline void make_features(const float* rows, int64_t g, int64_t step, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const auto [a, b] = factors[g * SIDE + i];
      const float *x = rows + a + step * PAIRED, *y = rows + b + step * PAIRED;
      split_pairs(_mm512_load_ps(x) * _mm512_load_ps(y), _mm512_load_ps(x + SIDE) * _mm512_load_ps(y + SIDE),
                  made[g % 2][step], i);
    }
  }

  // Pairs of features of two groups, from one to another, of 16 tokens, to be summed over features.
  ALWAYS inline void make_pairs(const float* rows, int64_t g, int64_t tokens, int64_t from, int64_t to) {
    rows += tokens * SIDE;
    for (int64_t p = from; p < to; ++p) {
      const auto [a, b] = factors[g * PAIRED + p];
      const auto [x, y] = factors[g * PAIRED + SIDE + p];
      split_pairs(_mm512_load_ps(rows + a) * _mm512_load_ps(rows + b),
                  _mm512_load_ps(rows + x) * _mm512_load_ps(rows + y), made[g % 2][tokens], p);
    }
  }

  // Add to the gradient of rows that of the features of a group, from one to another, of 16 tokens.
  ALWAYS inline void add_gradient(const float* rows, int64_t g, int64_t tile, int64_t from, int64_t to, float* drows) {
    to = std::min(to, f.count - g * SIDE);
    for (int64_t i = from; i < to;) {  // features of one first row after another
      const int64_t a = factors[g * SIDE + i].first;
      const vec<float> r = at(rows + a);
      vec<float> sum{};
      for (; i < to && factors[g * SIDE + i].first == a; ++i) {
        const int64_t b = factors[g * SIDE + i].second;
        const vec<float> d = at(dfeatures[tile % 4][i]);
        sum += d * at(rows + b);
        at(drows + b) += d * r;
      }
      at(drows + a) += sum;
    }
  }

  // C groups of columns of 32 tokens
  template <int C>
  void read_columns(Block<float, B>& block, int64_t t, int64_t first) {
    const float* rows = &block.rows[t];
    zero_sum<0>(), zero_sum<1>(), zero_sum<2>(), zero_sum<3>();
    make_pairs(rows, 0, 0, 0, SIDE), make_pairs(rows, 0, 1, 0, SIDE);
    for (int64_t g = 0; g < groups / 2; ++g) {
      const auto make = [&](int64_t tokens, int64_t tile) {
        return (C > 1 ? by_two : by_one).of(tile, [=](int64_t from, int64_t to) ALWAYS {
          if (g + 1 < groups / 2) make_pairs(rows, g + 1, tokens, from, to);
        });
      };
      const Split *features = made[g % 2], *state = &to_read[g * columns_of_tiles + first];
      add_product<0>(state[0], features[0], make(0, 0));
      add_product<1>(state[0], features[1], make(1, 0));
      if constexpr (C > 1) {
        add_product<2>(state[1], features[0], make(0, 1));
        add_product<3>(state[1], features[1], make(1, 1));
      }
    }
    float* to = &block.column_rows[first * SIDE * B + t];
    store_sum<0>(to, B);
    store_sum<1>(to + SIDE, B);
    if constexpr (C > 1) {
      store_sum<2>(to + SIDE * B, B);
      store_sum<3>(to + SIDE * B + SIDE, B);
    }
  }
};

}  // namespace taylorir

#endif
