// Row sums of Gaussian kernels from squared distances, to the bits that rbf.py's rbf_rows gives.
//
// A warp takes 4 rows of x (columns of the tile), 8 lanes each. Of every 256 rows of y, lane t of
// 8 holds rows t, t + 8, ...: folding by halves runs within the lane down to 8 values, and across
// lanes from there. Constants come from rbf.py, so that there is one copy of them; __dmul_rn and
// __dadd_rn keep the compiler from contracting.

struct Constants {
  double log2_e, ln2_high, ln2_low, round, smallest;
  double polynomial[10];
};

// exp(t) for t <= 0, operation by operation as rbf.exp says.
__device__ __forceinline__ double exp_of(double t, const Constants& c) {
  double clamped = t < c.smallest ? c.smallest : t;
  double z = __dadd_rn(__dmul_rn(clamped, c.log2_e), c.round);
  double k = __dsub_rn(z, c.round);
  double r = __dsub_rn(clamped, __dmul_rn(k, c.ln2_high));
  r = __dsub_rn(r, __dmul_rn(k, c.ln2_low));
  double p = __dmul_rn(r, c.polynomial[9]);
#pragma unroll
  for (int j = 8; j >= 0; --j) p = __dmul_rn(__dadd_rn(p, c.polynomial[j]), r);
  p = __dadd_rn(__dadd_rn(__dmul_rn(p, r), r), 1.0);
  long long bits = __double_as_longlong(p) + (__double_as_longlong(z) << 52);
  return t < c.smallest ? 0.0 : __longlong_as_double(bits);
}

// Folds 2 WIDTH values by halves.
template <int WIDTH>
__device__ __forceinline__ double halve(double* value) {
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) value[i] = __dadd_rn(value[i], value[i + WIDTH]);
  if constexpr (WIDTH == 1)
    return value[0];
  else
    return halve<WIDTH / 2>(value);
}

// totals[g, i] += sum over j of exp(-gammas[g] squared[j, i]); squared is [rows, columns].
extern "C" __global__ void __launch_bounds__(256)
    rbf_rows(const double* squared, int rows, int columns, const double* gammas, int bandwidths,
             double* totals, long long stride, const __grid_constant__ Constants c) {
  int lane = threadIdx.x % 32;
  int column = (blockIdx.x * 8 + threadIdx.x / 32) * 4 + lane % 4;
  bool there = column < columns;
  for (int top = 0; top < rows; top += 256) {
    double distance[32];
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      int row = top + i * 8 + lane / 4;
      bool inside = there && row < rows;
      distance[i] = inside ? squared[static_cast<long long>(row) * columns + column] : -1.0;
    }
    for (int g = 0; g < bandwidths; ++g) {
      double gamma = gammas[g], value[32];
#pragma unroll
      for (int i = 0; i < 32; ++i)
        value[i] = distance[i] < 0.0 ? 0.0 : exp_of(__dmul_rn(distance[i], -gamma), c);
      double sum = halve<16>(value);
#pragma unroll
      for (int apart = 16; apart >= 4; apart /= 2)
        sum = __dadd_rn(sum, __shfl_xor_sync(~0u, sum, apart));
      if (there && lane < 4) {
        double* total = totals + g * stride + column;
        *total = __dadd_rn(*total, sum);
      }
    }
  }
}
