// What CUDA C++ adds to C++, as far as the kernels use it.
#pragma once

#include <math.h>

#include "machine.h"

#define __device__
#define __global__ inline
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)

#define threadIdx (machine::self->index)
#define blockIdx (machine::self->block_index)
#define gridDim (machine::grid)

struct float2 {  // read and written in one access, which must be aligned
  float x, y;
  float2(float x, float y) : x(x), y(y) {}
  float2(const float2& from) : x(from.x), y(from.y) { machine::check_alignment(&from, 8); }
  float2& operator=(const float2& from) {
    machine::check_alignment(&from, 8);
    x = from.x;
    y = from.y;
    return *this;
  }
};

inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline long long __double_as_longlong(double value) {
  long long bits;
  memcpy(&bits, &value, 8);
  return bits;
}
inline double __longlong_as_double(long long bits) {
  double value;
  memcpy(&value, &bits, 8);
  return value;
}
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }

int atomicAdd(int* to, int value);
unsigned long long atomicAdd(unsigned long long* to, unsigned long long value);

void __syncthreads(HERE);
void __syncwarp(unsigned mask = ~0u, HERE);
uint64_t exchange(const char* kind, unsigned mask, uint64_t value, int lane, machine::Place here);
unsigned __ballot_sync(unsigned mask, int vote, HERE);
int __reduce_add_sync(unsigned mask, int value, HERE);
inline int __any_sync(unsigned mask, int vote, HERE) {
  return __ballot_sync(mask, vote, here) != 0;
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, HERE) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = exchange("__shfl_xor_sync", mask, bits, machine::self->lane ^ distance, here);
  memcpy(&value, &bits, sizeof value);
  return value;
}
