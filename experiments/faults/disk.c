/* A disk that takes nothing for a while: what a process is told that writes below a folder.

   Loaded before libc (LD_PRELOAD), so that it is told whoever writes: this project, Arrow, TensorBoard. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static char below[PATH_MAX];
static volatile int code;
static volatile double until;

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec * 1e-9;
}

/* Refuse, with an errno and for some seconds, whatever would be written below a folder. */
void refuse_writes(const char *folder, int with, double seconds) {
    snprintf(below, sizeof below, "%s", folder);
    code = with;
    until = now() + seconds;
}

static int is_refused(const char *path) {
    if (until == 0.0 || now() >= until || strncmp(path, below, strlen(below)) != 0) return 0;
    errno = code;
    return 1;
}

static int is_open_there(int descriptor) {
    char link[64], path[PATH_MAX];
    if (until == 0.0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    int before = errno;
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return is_refused(path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int descriptor, const void *content, size_t size) {
    return is_open_there(descriptor) ? -1 : NEXT(write)(descriptor, content, size);
}

ssize_t pwrite64(int descriptor, const void *content, size_t size, off64_t offset) {
    return is_open_there(descriptor) ? -1 : NEXT(pwrite64)(descriptor, content, size, offset);
}

int fsync(int descriptor) {
    return is_open_there(descriptor) ? -1 : NEXT(fsync)(descriptor);
}

int mkdir(const char *path, mode_t mode) {
    return is_refused(path) ? -1 : NEXT(mkdir)(path, mode);
}

int rename(const char *from, const char *to) {
    return is_refused(to) ? -1 : NEXT(rename)(from, to);
}

#define OPEN(name)                                            \
    int name(const char *path, int flags, ...) {              \
        va_list rest;                                         \
        va_start(rest, flags);                                \
        mode_t mode = flags & O_CREAT ? va_arg(rest, int) : 0; \
        va_end(rest);                                         \
        if (flags & O_CREAT && is_refused(path)) return -1;   \
        return NEXT(name)(path, flags, mode);                 \
    }

OPEN(open)
OPEN(open64)
