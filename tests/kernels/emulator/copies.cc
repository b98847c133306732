// What fills shared memory: the bulk copy engine of Hopper, and cp.async.
#include "prelude.cuh"
#include "ptx.cuh"

using namespace machine;

namespace {

constexpr uint64_t MAP = 0x6d617000ull;
constexpr int BOX_COLUMNS = 64;

}  // namespace

namespace machine {

bool overlap(const void* a, int64_t a_bytes, const void* b, int64_t b_bytes) {
  const char *left = static_cast<const char*>(a), *right = static_cast<const char*>(b);
  return left < right + b_bytes && right < left + a_bytes;
}

void land_box(int i) {
  Box box = cluster.boxes.take(i);
  if (box.block->running == 0) fail("a box lands in a block that has ended");
  const Matrix& matrix = box.matrix;
  for (int row = 0; row < matrix.box_rows; ++row)
    for (int column = 0; column < BOX_COLUMNS; ++column) {
      int64_t from_row = int64_t(box.row) + row, from_column = int64_t(box.column) + column;
      bool there = from_row >= 0 && from_row < matrix.rows && from_column >= 0 &&
                   from_column < matrix.columns;
      uint64_t address = uint64_t(box.to) + row * 128 + column * 2;
      address ^= (address >> 7 & 7) << 4;
      *reinterpret_cast<unsigned short*>(address) =
          there ? matrix.numbers[from_row * matrix.columns + from_column] : 0;
    }
  Place here = {"the copy engine", 0};
  Phases& phases =
      phases_of(*box.block, box.barrier, "a box lands", here);
  phases.bytes -= matrix.box_rows * 128;
  if (phases.bytes < -MOST_BYTES) fail("a barrier counts too many bytes");
  settle_phase(phases);
}

}  // namespace machine

void copy_box(void* to, const TensorMap* map, Barrier* barrier, int column, int row,
              unsigned short blocks, Place here) {
  Matrix matrix;
  memcpy(&matrix, map->words, sizeof matrix);
  if (map->words[15] != MAP || uintptr_t(map) % 64)
    fail("%s:%d: not a tensor map", name_of(here), here.line);
  if (blocks == 0 || blocks >> launch.cluster)
    fail("%s:%d: no such blocks: %x", name_of(here), here.line, blocks);
  Block& mine = *self->warp->block;
  int64_t bytes = matrix.box_rows * 128;
  int64_t at = inside(mine, to, bytes, "copy_box", here);
  if (at % 128) fail("%s:%d: a box must lie at a multiple of 128", name_of(here), here.line);
  for (Block* block : cluster.blocks) {
    if (!(blocks >> block->rank & 1)) continue;
    void* its = in_block(*block, barrier);
    if (!phases_of(*block, its, "copy_box", here).fenced)
      fail("%s:%d: the barrier's initialisation is not fenced", name_of(here), here.line);
    unsigned char* there = block->memory + at;
    for (Box& box : cluster.boxes)
      if (overlap(there, bytes, box.to, box.matrix.box_rows * 128))
        fail("%s:%d: a box is copied to where another is on its way", name_of(here), here.line);
    for (int i = 0; i < launch.threads / 32; ++i)
      for (Product& product : block->warps[i].products) {
        unsigned char* read;
        int64_t read_bytes;
        operand_bytes(*block, product.b, product.width, &read, &read_bytes);
        bool hit = overlap(there, bytes, read, read_bytes);
        operand_bytes(*block, product.a, 64, &read, &read_bytes);
        if (hit || overlap(there, bytes, read, read_bytes))
          fail("%s:%d: a box is copied to where warp %d of block %d still multiplies",
               name_of(here), here.line, i, block->rank);
      }
    memset(there, 0xff, bytes);  // NaN until it lands
    cluster.boxes.push(
        {block, there, its, matrix, column, row});
  }
}

// ---- cp.async ----

void copy_async(void* to, const void* from, bool inside_matrix, Place here) {
  inside(*self->warp->block, to, 16, "copy_async", here);
  if (uintptr_t(to) % 16 || uintptr_t(from) % 16)
    fail("%s:%d: a copy of 16 bytes is not aligned", name_of(here), here.line);
  bool known = !inside_matrix;
  for (int i = 0; i < launch.ranges; ++i)
    known |= uintptr_t(from) >= launch.range[i].from && uintptr_t(from) + 16 <= launch.range[i].to;
  if (!known)
    fail("copy_async at %s:%d reads outside of what the kernel was given", name_of(here),
         here.line);
  memset(to, 0xff, 16);
  const void* source = inside_matrix ? from : nullptr;
  self->chunks.push({static_cast<unsigned char*>(to), source, self->groups});
}

void copies_commit() { ++self->groups; }

void copies_wait_for(int in_flight) {
  List<Chunk>& chunks = self->chunks;
  int done = 0;
  while (done < chunks.size && chunks.items[done].group < self->groups - in_flight) {
    Chunk& chunk = chunks.items[done++];
    if (chunk.from)
      memcpy(chunk.to, chunk.from, 16);
    else
      memset(chunk.to, 0, 16);
  }
  chunks.drop_first(done);
}
