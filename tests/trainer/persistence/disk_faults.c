/* Faults of a disk, for tests: preloaded into a process, it makes one call on one file go wrong.

   DISK_FAULT="kind op nth words": the nth call of `op` on a path that ends in `words`, each number
   of which is written N, without what follows ".tmp" or ".unfinished-". Kinds: nospace, io (an
   error); torn (half is written, then there is no space); kill (half is written, then SIGKILL);
   after (SIGKILL once it is done); lie (it says it is done, is not, and a later call ends the
   process by SIGKILL).
   DISK_LOG=file: each call on a path with DISK_ROOT in it, as a line "op path", "lied path". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name, type, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

enum { GO, FAIL, HALF, HALF_AND_KILL, DONE_AND_KILL, LIE };
static int calls, left_to_live = -1;
static const char *marks[] = {".tmp", ".unfinished-"};
static char last[512]; /* the fault that the calls are counted of */

static void note(const char *op, const char *path) {
  const char *file = getenv("DISK_LOG");
  char line[8192];
  if (!file) return;
  int log = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  int size = snprintf(line, sizeof line, "%s %s\n", op, path);
  REAL("write", ssize_t, int, const void *, size_t);
  if (log >= 0 && real(log, line, size) == size) close(log);
}

/* What is to happen in a call of `op` on `path`; sets errno where it is to fail. */
static int verdict(const char *op, const char *path) {
  const char *root = getenv("DISK_ROOT"), *fault = getenv("DISK_FAULT");
  char kind[16], on[16], words[256], plain[4096];
  int nth, i, size = 0;
  if (!root || !strstr(path, root)) return GO;
  note(op, path);
  if (left_to_live > 0 && --left_to_live == 0) raise(SIGKILL);
  if (!fault || sscanf(fault, "%15s %15s %d %255s", kind, on, &nth, words) != 4) return GO;
  for (i = 0; path[i] && size < 4095; i++) {
    int digit = path[i] >= '0' && path[i] <= '9';
    if (!digit || !size || plain[size - 1] != 'N') plain[size++] = digit ? 'N' : path[i];
  }
  plain[size] = 0;
  for (i = 0; i < 2; i++) { /* what follows these in the last name is random */
    char *name = strrchr(plain, '/'), *mark = name ? strstr(name, marks[i]) : NULL;
    if (mark) mark[strlen(marks[i])] = 0;
  }
  size = (int)strlen(plain);
  i = size - (int)strlen(words);
  if (strcmp(op, on) || i < 0 || strcmp(plain + i, words)) return GO;
  if (strcmp(fault, last)) {
    snprintf(last, sizeof last, "%s", fault);
    calls = 0;
  }
  calls++;
  if (!strcmp(kind, "torn")) {
    errno = ENOSPC;
    return calls == nth ? HALF : calls > nth ? FAIL : GO;
  }
  errno = !strcmp(kind, "io") ? EIO : ENOSPC;
  if (!strcmp(kind, "io") || !strcmp(kind, "nospace")) return calls >= nth ? FAIL : GO;
  if (calls != nth) return GO;
  if (!strcmp(kind, "kill")) return HALF_AND_KILL;
  if (!strcmp(kind, "after")) return DONE_AND_KILL;
  note("lied", path);
  left_to_live = 12;
  return LIE;
}

static const char *path_of(int fd) {
  static __thread char path[4096], link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  path[size < 0 ? 0 : size] = 0;
  return path;
}

ssize_t write(int fd, const void *data, size_t size) {
  REAL("write", ssize_t, int, const void *, size_t);
  int what = fd < 3 ? GO : verdict("write", path_of(fd)), cause = errno;
  if (what == GO) return real(fd, data, size);
  if (what == FAIL) return errno = cause, -1;
  ssize_t done = real(fd, data, what == DONE_AND_KILL ? size : (size + 1) / 2);
  if (what != HALF) raise(SIGKILL);
  return done;
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
  REAL("fwrite", size_t, const void *, size_t, size_t, FILE *);
  int what = fileno(file) < 3 ? GO : verdict("fwrite", path_of(fileno(file))), cause = errno;
  if (what == GO) return real(data, size, count, file);
  if (what == FAIL) return errno = cause, 0;
  size_t done = real(data, 1, what == DONE_AND_KILL ? size * count : size * count / 2, file);
  fflush_unlocked(file);
  if (what != HALF) raise(SIGKILL);
  errno = ENOSPC;
  return done / size;
}

#define FLUSHING(name) \
  int name(FILE *file) { \
    REAL(#name, int, FILE *); \
    int what = !file || fileno(file) < 3 ? GO : verdict(#name, path_of(fileno(file))); \
    int cause = errno; \
    if (what == HALF_AND_KILL) raise(SIGKILL); \
    int result = real(file); \
    if (what == DONE_AND_KILL) raise(SIGKILL); \
    return what == GO || what == LIE ? result : (errno = cause, EOF); \
  }
FLUSHING(fflush)
FLUSHING(fclose)

#define SYNCING(name) \
  int name(int fd) { \
    REAL(#name, int, int); \
    int what = verdict("fsync", path_of(fd)), cause = errno; \
    if (what == LIE) return 0; \
    if (what == FAIL || what == HALF) return errno = cause, -1; \
    if (what == HALF_AND_KILL) raise(SIGKILL); \
    int result = real(fd); \
    if (what == DONE_AND_KILL) raise(SIGKILL); \
    return result; \
  }
SYNCING(fsync)
SYNCING(fdatasync)

#define ON_PATH(name, op, told, call, type, ...) \
  type name(__VA_ARGS__) { \
    REAL(#name, type, __VA_ARGS__); \
    int what = verdict(op, told), cause = errno; \
    if (what == FAIL || what == HALF) return errno = cause, (type)-1; \
    if (what == HALF_AND_KILL) raise(SIGKILL); \
    type result = call; \
    if (what == DONE_AND_KILL) raise(SIGKILL); \
    return result; \
  }
ON_PATH(rename, "rename", to, real(from, to), int, const char *from, const char *to)
ON_PATH(unlink, "unlink", path, real(path), int, const char *path)
ON_PATH(mkdir, "mkdir", path, real(path, mode), int, const char *path, mode_t mode)

static int opened(const char *path, int flags, mode_t mode, int (*real)(const char *, int, ...)) {
  int what = flags & O_CREAT && access(path, F_OK) ? verdict("create", path) : GO, cause = errno;
  if (what == FAIL || what == HALF) return errno = cause, -1;
  if (what == HALF_AND_KILL) raise(SIGKILL);
  int fd = real(path, flags, mode);
  if (what == DONE_AND_KILL) raise(SIGKILL);
  return fd;
}

#define OPENING(name) \
  int name(const char *path, int flags, ...) { \
    REAL(#name, int, const char *, int, ...); \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0; \
    va_end(more); \
    return opened(path, flags, mode, real); \
  }
OPENING(open)
OPENING(open64)

FILE *fopen(const char *path, const char *mode) {
  REAL("fopen", FILE *, const char *, const char *);
  int what = *mode != 'r' && access(path, F_OK) ? verdict("create", path) : GO, cause = errno;
  if (what == FAIL || what == HALF) return errno = cause, NULL;
  if (what == HALF_AND_KILL) raise(SIGKILL);
  FILE *file = real(path, mode);
  if (what == DONE_AND_KILL) raise(SIGKILL);
  return file;
}
