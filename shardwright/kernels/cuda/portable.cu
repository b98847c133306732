// Scans on any card from sm_80 on: mma.sync from a ring of shared memory filled by cp.async.
//
// A block holds 256 rows of x, 32 for each of its 8 warps, against 128 columns at a time. A row
// belongs to one warp alone, so that thresholds and lists need no locks. Grids are persistent.
#include "scan.cuh"

constexpr int WARPS = 8;
constexpr int ROWS = 32 * WARPS;  // of x in a block
constexpr int WIDTH = 128;        // columns of a tile
constexpr int SLICE = 32;         // numbers of a row in a stage: 4 chunks of 16 bytes
constexpr int STAGES = 3;
constexpr int THREADS = 32 * WARPS;

struct Ring {
  unsigned short x[STAGES][ROWS][SLICE];
  unsigned short y[STAGES][WIDTH][SLICE];
  float threshold[ROWS];
  int count[ROWS];
};

// Chunks of a row change places every second row: 8 rows at one chunk touch all 32 banks.
__device__ __forceinline__ unsigned short* chunk_at(unsigned short (*tile)[SLICE], int row,
                                                    int chunk) {
  return tile[row] + ((chunk ^ row >> 1) & 3) * 8;
}

// Starts the copies of one slice of `COUNT` rows from `first` on; what lies outside becomes zero.
template <int COUNT>
__device__ __forceinline__ void fetch(unsigned short (*tile)[SLICE], const unsigned short* from,
                                      int first, int rows, int depth, int slice) {
  constexpr int CHUNKS = SLICE / 8;
#pragma unroll
  for (int i = threadIdx.x; i < COUNT * CHUNKS; i += THREADS) {
    int row = i / CHUNKS, chunk = i % CHUNKS, at = slice * CHUNKS + chunk;
    bool inside = first + row < rows && at < depth;
    long long offset = (static_cast<long long>(first + row) * depth + at) * 8;
    copy_async(chunk_at(tile, row, chunk), inside ? from + offset : from, inside);
  }
}

__device__ __forceinline__ void multiply(Ring& ring, int stage, float* acc, int warp, int lane) {
#pragma unroll
  for (int k = 0; k < SLICE / 16; ++k) {
    unsigned a[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i)
      load_matrices(a[i], chunk_at(ring.x[stage], warp * 32 + i * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
    for (int j = 0; j < WIDTH / 16; ++j) {
      unsigned b[4];  // two blocks of 8 columns, two halves of 16 numbers
      int column = j * 16 + lane % 8 + lane / 16 * 8;
      load_matrices(b, chunk_at(ring.y[stage], column, k * 2 + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        multiply_add(acc + (i * (WIDTH / 8) + j * 2) * 4, a[i], b[0], b[1]);
        multiply_add(acc + (i * (WIDTH / 8) + j * 2 + 1) * 4, a[i], b[2], b[3]);
      }
    }
  }
}

template <Keep KEEP, bool BIAS>
__device__ __forceinline__ void scan(const unsigned short* x, const unsigned short* y,
                                     const Scan& p) {
  Ring& ring = *reinterpret_cast<Ring*>(shared_memory());
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  WarpRows<KEEP, BIAS, 2, WIDTH / 8> rows(p, ring.threshold + warp * 32, ring.count + warp * 32,
                                          lane);
  int slices = (p.depth * 8 + SLICE - 1) / SLICE;
  float acc[2 * WIDTH / 8 * 4];
  for (int i = blockIdx.x; i < p.items; i += gridDim.x) {
    int first = (p.order ? p.order[i] : i) * ROWS;
    Span span = span_of(p, first, first + ROWS - 1, WIDTH);
    rows.begin(first + warp * 32);
    int steps = span.tiles * slices;  // the slices of all tiles, one after the other
    auto start = [&](int step) {
      if (step < steps) {
        int column = span.begin + step / slices * WIDTH, slice = step % slices;
        fetch<ROWS>(ring.x[step % STAGES], x, first, p.rows, p.depth, slice);
        fetch<WIDTH>(ring.y[step % STAGES], y, column, p.columns, p.depth, slice);
      }
      copies_commit();
    };
    for (int step = 0; step < STAGES - 1; ++step) start(step);
    for (int step = 0; step < steps; ++step) {
      copies_wait<STAGES - 2>();
      __syncthreads();  // this slice is there for all, and all are done with the one before it
      start(step + STAGES - 1);
      if (step % slices == 0) {
#pragma unroll
        for (int j = 0; j < 2 * WIDTH / 8 * 4; ++j) acc[j] = 0.0f;
      }
      multiply(ring, step % STAGES, acc, warp, lane);
      if (step % slices == slices - 1) rows.visit(acc, span.begin + step / slices * WIDTH);
    }
    copies_wait<0>();
    __syncthreads();  // the ring is free for the next item
    rows.end();
  }
}

#define SCAN(NAME, KEEP, BIAS)                                                              \
  extern "C" __global__ void __launch_bounds__(THREADS, 1)                                  \
      NAME(const unsigned short* x, const unsigned short* y, const __grid_constant__ Scan p) { \
    scan<Keep::KEEP, BIAS>(x, y, p);                                                        \
  }

SCAN(scan_best, best, false)
SCAN(scan_best_bias, best, true)
SCAN(scan_several, several, false)
SCAN(scan_several_bias, several, true)
SCAN(scan_all, all, false)
SCAN(scan_all_bias, all, true)
