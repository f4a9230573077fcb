/* Makes calls of the C library fail, or report another time, for the tests of a poor machine.

   FAILING_FILES: a part of a path; writes to such files, and their syncs, fail with EIO.
   FAILING_DISK: syncs of a whole file system fail with EIO.
   CLOCK_OFFSET: a file with a number of seconds that the system clock is ahead, or behind. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int fails(int fd) {
    const char *part = getenv("FAILING_FILES");
    char link[64], path[4096];
    ssize_t length;
    if (!part) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

#define FAILING(type, name, parameters, arguments)                         \
    type name parameters {                                                 \
        static type (*real) parameters;                                    \
        if (fails(fd)) { errno = EIO; return -1; }                         \
        if (!real) real = (type (*) parameters)dlsym(RTLD_NEXT, #name);    \
        return real arguments;                                             \
    }

FAILING(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
FAILING(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
FAILING(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
FAILING(int, fsync, (int fd), (fd))
FAILING(int, fdatasync, (int fd), (fd))
FAILING(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))

int syncfs(int fd) {
    static int (*real)(int);
    if (getenv("FAILING_DISK")) { errno = EIO; return -1; }
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "syncfs");
    return real(fd);
}

static long offset(void) {
    const char *name = getenv("CLOCK_OFFSET");
    long seconds = 0;
    FILE *file = name ? fopen(name, "r") : NULL;
    if (!file) return 0;
    if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
    fclose(file);
    return seconds;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    int result;
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    result = real(id, now);
    if (!result && id == CLOCK_REALTIME) now->tv_sec += offset();
    return result;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
