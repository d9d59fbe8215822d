/* Faults of a disk and of a clock for whatever runs with this in LD_PRELOAD, native libraries included.

   FAULT_UNDER    only files whose path begins with this
   FAULT_OF       write: what changes files (open for writing, write, rename, unlink, mkdir, fsync); read: reading
   FAULT_AT       the number of the call, over all processes, at which it happens; 0: never, calls are counted
   FAULT_DO       kill: SIGKILL to the process group; die: SIGKILL to the process; or an errno, for this call and all
                  later ones
   FAULT_COUNTER  a file of 16 bytes that the processes share: calls counted, calls of the clock
   FAULT_CLOCK    seconds that the clock of the day is ahead (or behind) from its FAULT_CLOCK_AT-th call on */
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
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char *under, *of, *what;
static size_t length;
static long at, clock_at;
static double ahead;
static unsigned long *count;

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAULT_COUNTER");
    under = getenv("FAULT_UNDER"), of = getenv("FAULT_OF"), what = getenv("FAULT_DO");
    length = under ? strlen(under) : 0;
    at = getenv("FAULT_AT") ? atol(getenv("FAULT_AT")) : 0;
    ahead = getenv("FAULT_CLOCK") ? atof(getenv("FAULT_CLOCK")) : 0;
    clock_at = getenv("FAULT_CLOCK_AT") ? atol(getenv("FAULT_CLOCK_AT")) : 0;
    if (!file) return;
    int descriptor = open(file, O_RDWR);
    if (descriptor < 0) return;
    void *shared = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (shared != MAP_FAILED) count = shared;
}

/* Count a call on a path; return 0, or the errno that it has to fail with. */
static int fault(const char *kind, const char *path) {
    char whole[PATH_MAX];
    if (!count || !under || !of || strcmp(of, kind) || !path) return 0;
    if (path[0] != '/') {
        if (!getcwd(whole, sizeof whole / 2)) return 0;
        strncat(whole, "/", 2);
        strncat(whole, path, sizeof whole / 2 - 2);
        path = whole;
    }
    if (strncmp(path, under, length)) return 0;
    long number = (long)__atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
    if (!at || number < at) return 0;
    if (!strcmp(what, "kill")) return kill(0, SIGKILL), pause(), EIO;
    if (!strcmp(what, "die")) return number == at ? (kill(getpid(), SIGKILL), pause(), EIO) : 0;
    return atoi(what);
}

static int fault_fd(const char *kind, int descriptor) {
    char link[64], path[PATH_MAX];
    if (!count || !of || strcmp(of, kind)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    if (path[0] != '/') return 0; /* a pipe, a socket, an eventfd */
    return fault(kind, path);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define FAIL(error) do { int failed = (error); if (failed) { errno = failed; return -1; } } while (0)
#define MODE() mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))

int open(const char *path, int flags, ...) { MODE(); if (WRITES(flags)) FAIL(fault("write", path)); REAL(open); return real(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(); if (WRITES(flags)) FAIL(fault("write", path)); REAL(open64); return real(path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(); if (WRITES(flags)) FAIL(fault("write", path)); REAL(openat); return real(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(); if (WRITES(flags)) FAIL(fault("write", path)); REAL(openat64); return real(folder, path, flags, mode); }
ssize_t write(int fd, const void *data, size_t n) { FAIL(fault_fd("write", fd)); REAL(write); return real(fd, data, n); }
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t o) { FAIL(fault_fd("write", fd)); REAL(pwrite64); return real(fd, data, n, o); }
ssize_t writev(int fd, const struct iovec *v, int n) { FAIL(fault_fd("write", fd)); REAL(writev); return real(fd, v, n); }
ssize_t copy_file_range(int a, off64_t *x, int b, off64_t *y, size_t n, unsigned f) { FAIL(fault_fd("write", b)); REAL(copy_file_range); return real(a, x, b, y, n, f); }
ssize_t read(int fd, void *data, size_t n) { FAIL(fault_fd("read", fd)); REAL(read); return real(fd, data, n); }
ssize_t pread64(int fd, void *data, size_t n, off64_t o) { FAIL(fault_fd("read", fd)); REAL(pread64); return real(fd, data, n, o); }
int rename(const char *a, const char *b) { FAIL(fault("write", b)); REAL(rename); return real(a, b); }
int renameat(int x, const char *a, int y, const char *b) { FAIL(fault("write", b)); REAL(renameat); return real(x, a, y, b); }
int renameat2(int x, const char *a, int y, const char *b, unsigned f) { FAIL(fault("write", b)); REAL(renameat2); return real(x, a, y, b, f); }
int unlink(const char *path) { FAIL(fault("write", path)); REAL(unlink); return real(path); }
int mkdir(const char *path, mode_t mode) { FAIL(fault("write", path)); REAL(mkdir); return real(path, mode); }
int fsync(int fd) { FAIL(fault_fd("write", fd)); REAL(fsync); return real(fd); }

static long shifted(void) {
    if (!ahead || !count) return 0;
    return (long)__atomic_add_fetch(count + 1, 1, __ATOMIC_SEQ_CST) >= clock_at ? (long)ahead : 0;
}
int clock_gettime(clockid_t id, struct timespec *t) { REAL(clock_gettime); int done = real(id, t); if (id == CLOCK_REALTIME) t->tv_sec += shifted(); return done; }
time_t time(time_t *t) { struct timespec now; clock_gettime(CLOCK_REALTIME, &now); if (t) *t = now.tv_sec; return now.tv_sec; }
int gettimeofday(struct timeval *restrict t, void *restrict zone) { struct timespec now; (void)zone; clock_gettime(CLOCK_REALTIME, &now); t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000; return 0; }
