// Stands between a process and the C library (LD_PRELOAD): counts what a process does to the files
// below one folder, and at the n-th operation of a kind kills it, fails, writes half, or turns the
// clock back. Python, Arrow, DuckDB and FAISS all come through here. Disarmed, it only passes on.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { CREATE, WRITE, RENAME, SYNC, MKDIR, UNLINK, TRUNCATE, LINK, LOOK, READ, KINDS };
static const char *const NAMES[KINDS] = {"create", "write",    "rename", "sync", "mkdir",
                                         "unlink", "truncate", "link",   "look", "read"};
enum action { COUNT, KILL_BEFORE, KILL_AFTER, TEAR, FAIL, SHORT, CLOCK };
enum fate { PASS, FAILS, HALF, DIES_AFTER };

// Shared with the processes that this one forks.
struct plan {
  int armed, action, kind, error, log, hit;
  long at, shift;
  unsigned later;  // kinds that go on failing after the first
  long counts[KINDS];
  char below[PATH_MAX];
};
static struct plan *plan;

__attribute__((constructor)) static void begin(void) {
  plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (plan == MAP_FAILED) abort();
}

// A forked child gets a plan of its own.
void faults_arm(const char *below, int kind, long at, int action, int error, unsigned later,
                long shift, int log) {
  begin();
  strncpy(plan->below, below, PATH_MAX - 1);
  plan->kind = kind, plan->at = at, plan->action = action, plan->error = error;
  plan->later = later, plan->shift = shift, plan->log = log;
  __atomic_store_n(&plan->armed, 1, __ATOMIC_SEQ_CST);
}

void faults_disarm(void) { __atomic_store_n(&plan->armed, 0, __ATOMIC_SEQ_CST); }
long faults_count(int kind) { return plan->counts[kind]; }

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static void die(void) {
  for (;;) syscall(SYS_kill, getpid(), SIGKILL);
}

static int inside(const char *path) {
  size_t length = strlen(plan->below);
  return !strncmp(path, plan->below, length) && (path[length] == '/' || !path[length]);
}

// Path of a name below an open folder.
static const char *full(int folder, const char *name, char *buffer) {
  if (name[0] == '/') return name;
  ssize_t length;
  if (folder == AT_FDCWD) {
    length = readlink("/proc/self/cwd", buffer, PATH_MAX - 1);
  } else {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    length = readlink(link, buffer, PATH_MAX - 1);
  }
  if (length < 0) return name;
  buffer[length] = 0;
  if (name[0]) {
    strncat(buffer, "/", PATH_MAX - 1 - strlen(buffer));
    strncat(buffer, name, PATH_MAX - 1 - strlen(buffer));
  }
  return buffer;
}

static enum fate fate_of(enum kind kind, const char *path, const char *other) {
  if (!inside(path) && !(other && inside(other))) return PASS;
  long number = __atomic_add_fetch(&plan->counts[kind], 1, __ATOMIC_SEQ_CST);
  int now = plan->action != COUNT && (int)kind == plan->kind && number == plan->at;
  if (plan->log >= 0 && (kind < LOOK || now)) {
    char line[3 * PATH_MAX];
    int length = snprintf(line, sizeof line, "%s\t%ld\t%s\t%s\t%d\n", NAMES[kind], number, path,
                          other ? other : "", now);
    syscall(SYS_write, plan->log, line, length);
  }
  if (now) __atomic_store_n(&plan->hit, 1, __ATOMIC_SEQ_CST);
  if (!now) {
    if (!plan->hit || !(plan->later >> kind & 1)) return PASS;
    errno = plan->error;
    return FAILS;
  }
  switch (plan->action) {
    case KILL_BEFORE: die();
    case KILL_AFTER: return DIES_AFTER;
    case TEAR: return HALF;
    case SHORT: return HALF;
    case FAIL:
      // A disk that runs full takes a part of what it is given first.
      if (kind == WRITE && plan->error == ENOSPC) return HALF;
      errno = plan->error;
      return FAILS;
    default: return PASS;
  }
}

static enum fate fate(enum kind kind, const char *path) {
  if (!plan || !__atomic_load_n(&plan->armed, __ATOMIC_SEQ_CST)) return PASS;
  char buffer[PATH_MAX];
  return fate_of(kind, full(AT_FDCWD, path, buffer), NULL);
}

static enum fate fate_at(enum kind kind, int folder, const char *path) {
  if (!plan || !__atomic_load_n(&plan->armed, __ATOMIC_SEQ_CST)) return PASS;
  char buffer[PATH_MAX];
  return fate_of(kind, full(folder, path, buffer), NULL);
}

static enum fate fate_two(enum kind kind, int from, const char *a, int to, const char *b) {
  if (!plan || !__atomic_load_n(&plan->armed, __ATOMIC_SEQ_CST)) return PASS;
  char one[PATH_MAX], two[PATH_MAX];
  return fate_of(kind, full(from, a, one), full(to, b, two));
}

#define ENDED(result)                      \
  do {                                     \
    __typeof__(result) ended = (result);   \
    if (fated == DIES_AFTER) die();        \
    return ended;                          \
  } while (0)

static enum kind opened(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT) ? CREATE : LOOK; }

#define OPEN(name, ...)                                                  \
  int name(const char *path, int flags, ...) {                           \
    va_list more;                                                        \
    va_start(more, flags);                                               \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, int) : 0; \
    va_end(more);                                                        \
    enum fate fated = fate(opened(flags), path);                         \
    if (fated == FAILS) return -1;                                       \
    ENDED((int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode)); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                     \
  int name(int folder, const char *path, int flags, ...) {               \
    va_list more;                                                        \
    va_start(more, flags);                                               \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, int) : 0; \
    va_end(more);                                                        \
    enum fate fated = fate_at(opened(flags), folder, path);              \
    if (fated == FAILS) return -1;                                       \
    ENDED((int)syscall(SYS_openat, folder, path, flags | O_LARGEFILE, mode)); \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                      \
  FILE *name(const char *path, const char *mode) {                       \
    enum fate fated = fate(strpbrk(mode, "wa+") ? CREATE : LOOK, path);  \
    if (fated == FAILS) return NULL;                                     \
    ENDED(REAL(name)(path, mode));                                       \
  }
FOPEN(fopen)
FOPEN(fopen64)

// Half of a buffer, and what that means: the rest is not written, or the process is no more.
#define SOME(kind, handle, size, part, whole)                            \
  enum fate fated = fate_at(kind, handle, "");                           \
  if (fated == FAILS) return -1;                                         \
  if (fated == HALF && size > 1) {                                       \
    ssize_t done = part;                                                 \
    if (plan->action == TEAR) die();                                     \
    return done;                                                         \
  }                                                                      \
  if (fated == HALF && plan->action == TEAR) die();                      \
  ENDED(whole)

ssize_t write(int handle, const void *data, size_t size) {
  SOME(WRITE, handle, size, syscall(SYS_write, handle, data, size / 2),
       syscall(SYS_write, handle, data, size));
}
ssize_t read(int handle, void *data, size_t size) {
  SOME(READ, handle, size, syscall(SYS_read, handle, data, size / 2),
       syscall(SYS_read, handle, data, size));
}
#define PWRITE(name)                                                     \
  ssize_t name(int handle, const void *data, size_t size, off64_t at) {    \
    SOME(WRITE, handle, size, syscall(SYS_pwrite64, handle, data, size / 2, at), \
         syscall(SYS_pwrite64, handle, data, size, at));                 \
  }
PWRITE(pwrite)
PWRITE(pwrite64)
#define PREAD(name)                                                      \
  ssize_t name(int handle, void *data, size_t size, off64_t at) {          \
    SOME(READ, handle, size, syscall(SYS_pread64, handle, data, size / 2, at), \
         syscall(SYS_pread64, handle, data, size, at));                  \
  }
PREAD(pread)
PREAD(pread64)
ssize_t writev(int handle, const struct iovec *parts, int count) {
  SOME(WRITE, handle, count, syscall(SYS_writev, handle, parts, count / 2),
       syscall(SYS_writev, handle, parts, count));
}
#define SENDFILE(name)                                                   \
  ssize_t name(int out, int in, off64_t *at, size_t size) {                \
    SOME(WRITE, out, size, syscall(SYS_sendfile, out, in, at, size / 2), \
         syscall(SYS_sendfile, out, in, at, size));                      \
  }
SENDFILE(sendfile)
SENDFILE(sendfile64)
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
  SOME(WRITE, out, size, syscall(SYS_copy_file_range, in, from, out, to, size / 2, flags),
       syscall(SYS_copy_file_range, in, from, out, to, size, flags));
}

#define ONE(kind, name, declared, given, where)                          \
  int name declared {                                                    \
    enum fate fated = where;                                             \
    if (fated == FAILS) return -1;                                       \
    if (fated == HALF) die();                                            \
    ENDED(REAL(name) given);                                             \
  }
ONE(SYNC, fsync, (int handle), (handle), fate_at(SYNC, handle, ""))
ONE(SYNC, fdatasync, (int handle), (handle), fate_at(SYNC, handle, ""))
ONE(MKDIR, mkdir, (const char *path, mode_t mode), (path, mode), fate(MKDIR, path))
ONE(MKDIR, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode),
    fate_at(MKDIR, at, path))
ONE(UNLINK, unlink, (const char *path), (path), fate(UNLINK, path))
ONE(UNLINK, rmdir, (const char *path), (path), fate(UNLINK, path))
ONE(UNLINK, unlinkat, (int at, const char *path, int flags), (at, path, flags),
    fate_at(UNLINK, at, path))
ONE(TRUNCATE, truncate, (const char *path, off_t size), (path, size), fate(TRUNCATE, path))
ONE(TRUNCATE, ftruncate, (int handle, off_t size), (handle, size), fate_at(TRUNCATE, handle, ""))
ONE(TRUNCATE, ftruncate64, (int handle, off64_t size), (handle, size),
    fate_at(TRUNCATE, handle, ""))
ONE(RENAME, rename, (const char *a, const char *b), (a, b),
    fate_two(RENAME, AT_FDCWD, a, AT_FDCWD, b))
ONE(RENAME, renameat, (int from, const char *a, int to, const char *b), (from, a, to, b),
    fate_two(RENAME, from, a, to, b))
ONE(LINK, link, (const char *a, const char *b), (a, b), fate_two(LINK, AT_FDCWD, a, AT_FDCWD, b))
ONE(LINK, linkat, (int from, const char *a, int to, const char *b, int flags),
    (from, a, to, b, flags), fate_two(LINK, from, a, to, b))

static long back(void) {
  return plan && plan->armed && (plan->action != CLOCK || plan->hit) ? plan->shift : 0;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  int ended = REAL(clock_gettime)(clock, now);
  if (!ended && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec -= back();
  return ended;
}
int gettimeofday(struct timeval *now, void *zone) {
  int ended = REAL(gettimeofday)(now, zone);
  if (!ended) now->tv_sec -= back();
  return ended;
}
time_t time(time_t *place) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (place) *place = now.tv_sec;
  return now.tv_sec;
}
