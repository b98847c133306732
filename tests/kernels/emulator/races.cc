// Watches every access of a kernel to shared and global memory.
//
// Kernels are compiled with -fsanitize=thread, which calls the functions below before each access;
// they are all of it that is used. Two accesses to the same 2 bytes, one of them a write, race
// unless a barrier of the warp (for lanes of one warp) or of the block lies between them. Votes and
// shuffles order no memory. Accesses outside of what the launch was given are errors.
#include "machine.h"

extern char __ehdr_start __attribute__((visibility("hidden")));  // the library's own data
extern char _end __attribute__((visibility("hidden")));

using namespace machine;

namespace {

struct Access {
  Thread* by;  // null: nobody; the last one of several alike
  unsigned meetings;
  int epoch;
  bool atomic, several;
};

struct Word {
  Access write, read;
};

struct Page {  // the accesses to 4 KiB
  uintptr_t number;
  Word words[2048];
};

constexpr uint64_t PAGES = 1 << 14;
Page** pages;

Word& word_at(uintptr_t address) {
  if (!pages) pages = static_cast<Page**>(allocate(sizeof(Page*) * PAGES));
  uintptr_t number = address >> 12;
  uint64_t slot = number % PAGES;
  while (pages[slot] && pages[slot]->number != number) slot = (slot + 1) % PAGES;
  if (!pages[slot]) {
    pages[slot] = static_cast<Page*>(allocate(sizeof(Page)));
    pages[slot]->number = number;
  }
  return pages[slot]->words[(address & 4095) >> 1];
}

bool unordered(const Access& before) {
  if (!before.by || (before.by == self && !before.several)) return false;
  const Warp &its = *before.by->warp, &mine = *self->warp;
  if (its.block != mine.block) return true;
  if (its.block->epoch != before.epoch) return false;
  return &its != &mine || its.meetings == before.meetings;
}

void remember(Access& access, bool atomic) {
  bool same = access.by && access.meetings == self->warp->meetings &&
              access.epoch == self->warp->block->epoch;
  access.several = same && (access.by != self || access.several);
  access.by = self;
  access.meetings = self->warp->meetings;
  access.epoch = self->warp->block->epoch;
  access.atomic = atomic;
}

void visit(const void* pointer, size_t bytes, bool write, bool atomic) {
  if (!self) return;
  uintptr_t at = uintptr_t(pointer);
  if (at >= uintptr_t(&__ehdr_start) && at < uintptr_t(&_end)) return;
  Block& block = *self->warp->block;
  uintptr_t shared = uintptr_t(block.memory) + FIRST_ADDRESS;
  const char* where = "shared";
  if (at < shared || at + bytes > shared + launch.memory) {
    if (is_own(pointer)) return;
    where = "global";
    bool known = false;
    for (int i = 0; i < launch.ranges; ++i)
      known |= at >= launch.range[i].from && at + bytes <= launch.range[i].to;
    if (!known) fail("%s outside of what the kernel was given", write ? "writes" : "reads");
  }
  if (at % (bytes < 16 ? bytes : 16)) fail("an access of %zu bytes is not aligned", bytes);
  for (uintptr_t address = at & ~uintptr_t(1); address < at + bytes; address += 2) {
    Word& word = word_at(address);
    bool race = !(atomic && word.write.atomic) && unordered(word.write);
    if (write) race |= !(atomic && word.read.atomic) && unordered(word.read);
    if (race) {
      const Access& other = unordered(word.write) ? word.write : word.read;
      fail("a race in %s memory (%s): lane %d of warp %d was there", where,
           write ? "write" : "read", other.by->lane, other.by->warp->rank);
    }
    remember(write ? word.write : word.read, atomic);
  }
}

}  // namespace

namespace machine {

void forget_accesses() { pages = nullptr; }

void check_alignment(const void* pointer, size_t bytes) {
  if (!is_own(pointer) && uintptr_t(pointer) % bytes)
    fail("an access of %zu bytes is not aligned", bytes);
}

void touch_atomically(const void* pointer, size_t bytes) { visit(pointer, bytes, true, true); }

}  // namespace machine

#define WATCH(SIZE)                                                                             \
  extern "C" void __tsan_read##SIZE(void* at) { visit(at, SIZE, false, false); }                \
  extern "C" void __tsan_write##SIZE(void* at) { visit(at, SIZE, true, false); }                \
  extern "C" void __tsan_unaligned_read##SIZE(void* at) { visit(at, SIZE, false, false); }      \
  extern "C" void __tsan_unaligned_write##SIZE(void* at) { visit(at, SIZE, true, false); }      \
  extern "C" void __tsan_read_write##SIZE(void* at) { visit(at, SIZE, true, false); }           \
  extern "C" void __tsan_unaligned_read_write##SIZE(void* at) { visit(at, SIZE, true, false); }
WATCH(1)
WATCH(2)
WATCH(4)
WATCH(8)
WATCH(16)
extern "C" void __tsan_read_range(void* at, size_t bytes) { visit(at, bytes, false, false); }
extern "C" void __tsan_write_range(void* at, size_t bytes) { visit(at, bytes, true, false); }
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  return memcpy(to, from, bytes);
}
extern "C" void* __tsan_memset(void* to, int value, size_t bytes) {
  return memset(to, value, bytes);
}
