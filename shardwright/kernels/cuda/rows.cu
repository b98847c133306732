// What scans need to know of rows, and float64 values of pairs, in the canonical order.
//
// A warp takes one row, or one pair. Terms are added as exact.py adds them on a CPU, to the same
// bits: 256 accumulators, of which lane l holds l, l + 32, ..., folded by halves. Products of two
// float32 numbers are exact in float64; __dmul_rn and __dadd_rn keep the compiler from contracting
// what is not.
#include "ptx.cuh"

enum Kind { FLOAT32 = 0, FLOAT16 = 1, BFLOAT16 = 2 };

__device__ __forceinline__ float load(const void* numbers, int kind, long long i) {
  if (kind == FLOAT32) return static_cast<const float*>(numbers)[i];
  unsigned short bits = static_cast<const unsigned short*>(numbers)[i];
  return kind == FLOAT16 ? float_from_half(bits) : __uint_as_float(unsigned(bits) << 16);
}

__device__ __forceinline__ double sum_lanes(double value) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2)
    value = __dadd_rn(value, __shfl_xor_sync(~0u, value, distance));
  return value;
}

// The canonical sum of 256 accumulators, eight in each lane.
__device__ __forceinline__ double fold(double (&sum)[8]) {
#pragma unroll
  for (int width = 4; width; width /= 2)
#pragma unroll
    for (int i = 0; i < width; ++i) sum[i] = __dadd_rn(sum[i], sum[i + width]);
  return __dadd_rn(sum_lanes(sum[0]), 0.0);  // -0.0 becomes 0.0
}

// squares[i] = |x_i|^2.
extern "C" __global__ void __launch_bounds__(256)
    row_squares(const void* x, int kind, long long rows, int width, double* squares) {
  int lane = threadIdx.x % 32;
  long long step = static_cast<long long>(gridDim.x) * 8;
  for (long long row = blockIdx.x * 8ll + threadIdx.x / 32; row < rows; row += step) {
    double sum[8] = {};
    for (int at = 0; at < width; at += 256) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        int column = at + i * 32 + lane;
        if (column < width) {
          double value = load(x, kind, row * width + column);
          sum[i] = __dadd_rn(sum[i], __dmul_rn(value, value));
        }
      }
    }
    double square = fold(sum);
    if (lane == 0) squares[row] = square;
  }
}

// rounded[i] = float16(x_i * factor_i), `stride` >= width numbers a row, zeros behind width;
// lost[i] = |x_i * factor_i - rounded_i|^2, for the error bound.
extern "C" __global__ void __launch_bounds__(256)
    row_halves(const void* x, int kind, long long rows, int width, int stride,
               const double* factors, unsigned short* rounded, double* lost) {
  int lane = threadIdx.x % 32;
  long long step = static_cast<long long>(gridDim.x) * 8;
  for (long long row = blockIdx.x * 8ll + threadIdx.x / 32; row < rows; row += step) {
    double factor = factors[row], sum = 0.0;
    for (int column = lane; column < stride; column += 32) {
      double value = 0.0;
      if (column < width) value = __dmul_rn(load(x, kind, row * width + column), factor);
      unsigned short bits = half_from(static_cast<float>(value));
      rounded[row * stride + column] = bits;
      double error = value - float_from_half(bits);
      sum += error * error;
    }
    sum = sum_lanes(sum);
    if (lane == 0) lost[row] = sum;
  }
}

// sums[i] = x_r . y_c, or |x_r - y_c|^2 if `squared`, for pair i = (r, c).
extern "C" __global__ void __launch_bounds__(256)
    pair_sums(const void* x, int x_kind, const void* y, int y_kind, int width,
              const long long* row, const long long* column, long long pairs, int squared,
              double* sums) {
  int lane = threadIdx.x % 32;
  long long step = static_cast<long long>(gridDim.x) * 8;
  for (long long pair = blockIdx.x * 8ll + threadIdx.x / 32; pair < pairs; pair += step) {
    long long left = row[pair] * width, right = column[pair] * width;
    double sum[8] = {};
    for (int at = 0; at < width; at += 256) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        int place = at + i * 32 + lane;
        if (place < width) {
          double a = load(x, x_kind, left + place), b = load(y, y_kind, right + place);
          double difference = __dsub_rn(a, b);
          double term = squared ? __dmul_rn(difference, difference) : __dmul_rn(a, b);
          sum[i] = __dadd_rn(sum[i], term);
        }
      }
    }
    double total = fold(sum);
    if (lane == 0) sums[pair] = total;
  }
}
