// The tensor cores: wgmma with its asynchrony, mma.sync and ldmatrix, and 16-bit numbers.
#include <math.h>

#include "prelude.cuh"
#include "ptx.cuh"

using namespace machine;

namespace {

unsigned char* start_of(Block& block, uint64_t descriptor) {
  return block.memory + ((descriptor & 0x3fff) << 4);
}

int64_t group_distance(uint64_t descriptor) { return (descriptor >> 32 & 0x3fff) << 4; }

// Rows `first`.. of an operand of a product: K-major, 128-byte swizzle.
void read_operand(Block& block, uint64_t descriptor, int first, int rows, float* to, int stride) {
  for (int row = 0; row < rows; ++row) {
    int at = first + row;
    for (int k = 0; k < 16; ++k) {
      uint64_t address = uint64_t(start_of(block, descriptor)) +
                         at / 8 * group_distance(descriptor) + at % 8 * 128 + k * 2;
      address ^= (address >> 7 & 7) << 4;
      to[k * stride + row] = float_of_half(*reinterpret_cast<unsigned short*>(address));
    }
  }
}

// sums[j] += sum over k of a[k] b[k][j], as tensor cores add: all terms and the sum so far are cut
// to a multiple of 2^-24 of the largest one's power of two, and their sum is cut to float32.
void accumulate(const float* a, const float (*b)[256], int depth, int width, float* sums) {
  constexpr int AT_ONCE = 16;
  for (int begin = 0; begin < width; begin += AT_ONCE) {
    int count = width - begin < AT_ONCE ? width - begin : AT_ONCE;
    double terms[17][AT_ONCE], largest[AT_ONCE], plain[AT_ONCE];
    for (int j = 0; j < count; ++j) {
      terms[depth][j] = plain[j] = sums[begin + j];
      largest[j] = fabs(terms[depth][j]);
    }
    for (int k = 0; k < depth; ++k)
      for (int j = 0; j < count; ++j) {
        double term = double(a[k]) * double(b[k][begin + j]);
        terms[k][j] = term;
        plain[j] += term;
        largest[j] = fabs(term) > largest[j] ? fabs(term) : largest[j];
      }
    for (int j = 0; j < count; ++j) {
      uint64_t bits;
      double floor = largest[j] < 0x1p-200 ? 0x1p-200 : largest[j];
      memcpy(&bits, &floor, 8);
      bits &= 0x7ffull << 52;
      memcpy(&floor, &bits, 8);
      largest[j] = floor * 0x1p-24;  // one unit: a term is at most 2^25 of them
    }
    for (int j = 0; j < count; ++j) {
      if (!(fabs(plain[j]) < 1e38)) {  // poison, or an overflow
        sums[begin + j] = float(plain[j]);
        continue;
      }
      double inverse = 1.0 / largest[j];
      int units = 0;
      for (int k = 0; k <= depth; ++k) units += int(terms[k][j] * inverse);
      double sum = units * largest[j];
      uint64_t bits;
      memcpy(&bits, &sum, 8);
      bits &= ~((1ull << 29) - 1);
      memcpy(&sum, &bits, 8);
      sums[begin + j] = float(sum);
    }
  }
}

void execute(Warp& warp, const Product& product) {
  static float a[16][16], b[16][256];
  Block& block = *warp.block;
  read_operand(block, product.a, warp.rank % 4 * 16, 16, a[0], 16);
  read_operand(block, product.b, 0, product.width, b[0], 256);
  for (int row = 0; row < 16; ++row) {
    float column[16];
    for (int k = 0; k < 16; ++k) column[k] = a[k][row];
    if (!product.add) memset(warp.sums[row], 0, sizeof warp.sums[row]);
    accumulate(column, b, 16, product.width, warp.sums[row]);
  }
}

// Between a warp's accumulators here and those of its lanes, as "wgmma.mma_async" lays them out.
template <class Move>
void each_accumulator(Warp& warp, Move move) {
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < warp.width / 2; ++i)
      move(warp.sums[lane / 4 + (i >> 1 & 1) * 8][i / 4 * 8 + lane % 4 * 2 + (i & 1)],
           warp.accumulators[lane][i]);
}

void check_operand(Block& block, uint64_t descriptor, int rows, Place here) {
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0)
    fail("%s:%d: not a descriptor of 128-byte swizzled rows", name_of(here), here.line);
  unsigned char* at;
  int64_t bytes;
  machine::operand_bytes(block, descriptor, rows, &at, &bytes);
  inside(block, at, bytes, "wgmma", here);
  for (Box& box : cluster.boxes)
    if (box.block == &block && overlap(at, bytes, box.to, box.matrix.box_rows * 128))
      fail("%s:%d: a product reads a box that has not landed", name_of(here), here.line);
}

}  // namespace

namespace machine {

// The bytes that a product reads of an operand with `rows` rows.
void operand_bytes(Block& block, uint64_t descriptor, int rows, unsigned char** at,
                   int64_t* bytes) {
  *at = reinterpret_cast<unsigned char*>(uintptr_t(start_of(block, descriptor)) & ~uintptr_t(127));
  *bytes = (rows / 8 - 1) * group_distance(descriptor) + 1024;
}

float float_of_half(unsigned short bits) {
  unsigned sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
  if (rest >= 0x7c00) return __uint_as_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  float value = __uint_as_float(rest << 13) * 0x1p112f;  // subnormal numbers come right as well
  return __uint_as_float(sign | __float_as_uint(value));
}

unsigned short half_of_float(float value) {
  unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return sign | 0x7fffu;
  if (bits >= 0x477ff000u) return sign | 0x7c00u;  // from 65520 on
  if (bits < 0x38800000u)                          // the addition rounds to multiples of 2^-24
    return sign | (__float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3f000000u);
  bits += 0xc8000fffu + (bits >> 13 & 1);
  return sign | bits >> 13;
}

}  // namespace machine

// ---- warpgroup products ----

void products_begin(Place here) {
  if (meet("products_begin", 0, here)) {
    self->warp->fenced = true;
    met();
  }
}

void wgmma_issue(float* acc, int width, unsigned long long a, unsigned long long b, int add,
                 Place here) {
  Warp& warp = *self->warp;
  warp.words[self->lane][0] = unsigned(a);
  warp.words[self->lane][1] = unsigned(b);
  warp.words[self->lane][2] = unsigned(add != 0);
  if (!meet("wgmma", uint64_t(acc), here)) return;
  for (unsigned(&words)[4] : warp.words)
    if (memcmp(words, warp.words[0], 12))
      fail("%s:%d: lanes multiply different things", name_of(here), here.line);
  if (!warp.fenced) fail("%s:%d: wgmma without products_begin", name_of(here), here.line);
  check_operand(*warp.block, a, 64, here);
  check_operand(*warp.block, b, width, here);
  if (!warp.sums) warp.sums = static_cast<float(*)[256]>(allocate(sizeof(float[16][256])));
  if (warp.products.size == 0) {  // the accumulators leave the lanes
    warp.width = width;
    for (int lane = 0; lane < 32; ++lane)
      warp.accumulators[lane] = reinterpret_cast<float*>(warp.brought[lane]);
    each_accumulator(warp, [](float& sum, float& lane) {
      sum = lane;
      lane = __uint_as_float(~0u);
    });
  } else if (warp.width != width ||
             warp.accumulators[self->lane] != reinterpret_cast<float*>(acc)) {
    fail("%s:%d: products into two sets of accumulators at once", name_of(here), here.line);
  }
  warp.products.push({a, b, width, warp.groups, add != 0});
  warp.history = (warp.history ^ a ^ b << 17 ^ uint64_t(add != 0) << 40) * 0x9e3779b97f4a7c15u;
  met();
}

void products_commit(Place here) {
  if (meet("products_commit", 0, here)) {
    ++self->warp->groups;
    met();
  }
}

void products_wait_for(int in_flight, Place here) {
  if (!meet("products_wait", 0, here)) return;
  Warp& warp = *self->warp;
  int done = 0;
  while (done < warp.products.size && warp.products.items[done].group < warp.groups - in_flight)
    execute(warp, warp.products.items[done++]);
  warp.products.drop_first(done);
  if (done && warp.products.size == 0)
    each_accumulator(warp, [](float& sum, float& lane) { lane = sum; });
  if (in_flight == 0) warp.fenced = false;  // what follows may touch the accumulators
  met();
}

// ---- products of a warp ----

void load_matrices(unsigned (&to)[4], const void* row, Place here) {
  Warp& warp = *self->warp;
  inside(*warp.block, row, 16, "load_matrices", here);
  if (uintptr_t(row) % 16) fail("%s:%d: a row is not aligned", name_of(here), here.line);
  if (meet("load_matrices", uint64_t(row), here)) {
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i)
        memcpy(&warp.words[lane][i],
               reinterpret_cast<char*>(warp.brought[i * 8 + lane / 4]) + lane % 4 * 4, 4);
    met();
  }
  memcpy(to, warp.words[self->lane], sizeof to);
}

void multiply_add(float* acc, const unsigned (&a)[4], unsigned b0, unsigned b1, Place here) {
  struct Brought {
    float* acc;
    const unsigned* a;
    unsigned b[2];
  } mine = {acc, a, {b0, b1}};
  Warp& warp = *self->warp;
  if (!meet("multiply_add", uint64_t(&mine), here)) return;
  float left[16][16], right[16][256], sums[16][8];  // right: [k, column]
  auto half = [](unsigned pair, int i) { return float_of_half(pair >> 16 * i); };
  for (int lane = 0; lane < 32; ++lane) {
    const Brought& its = *reinterpret_cast<Brought*>(warp.brought[lane]);
    int group = lane / 4, pair = lane % 4 * 2;
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 4; ++j)
        left[group + j % 2 * 8][pair + j / 2 * 8 + i] = half(its.a[j], i);
      for (int j = 0; j < 2; ++j) right[pair + j * 8 + i][group] = half(its.b[j], i);
      for (int j = 0; j < 2; ++j) sums[group + j * 8][pair + i] = its.acc[j * 2 + i];
    }
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; k += 8) accumulate(left[row] + k, right + k, 8, 8, sums[row]);
  for (int lane = 0; lane < 32; ++lane) {
    const Brought& its = *reinterpret_cast<Brought*>(warp.brought[lane]);
    for (int i = 0; i < 4; ++i) its.acc[i] = sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
  met();
}
