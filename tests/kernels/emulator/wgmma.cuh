// The host's twin of the generated wgmma.cuh: one overload of wgmma per width.
#pragma once

#include "ptx.cuh"

template <int HALF_WIDTH>
void wgmma(float (&acc)[HALF_WIDTH], unsigned long long a, unsigned long long b, int add, HERE) {
  static_assert(HALF_WIDTH == 64 || HALF_WIDTH == 128, "widths 128 and 256");
  wgmma_issue(acc, 2 * HALF_WIDTH, a, b, add, here);
}
