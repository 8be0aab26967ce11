/* fsync and fdatasync that fail with EIO for one file, while there is a file that says so.

   Preloaded (LD_PRELOAD) into a child by test_erasing_sync.py. FAIL_WHILE: the path of the file that says so.
   FAIL_FOR: the end of the name of the file for which they fail. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd)
{
    const char *flag = getenv("FAIL_WHILE"), *end = getenv("FAIL_FOR");
    char link[64], name[4096];
    ssize_t length;
    if (!flag || !end || access(flag, F_OK))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, name, sizeof name - 1);
    if (length < (ssize_t)strlen(end))
        return 0;
    name[length] = 0;
    return strcmp(name + length - strlen(end), end) == 0;
}

static int sync_or_fail(int fd, const char *call)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

int fsync(int fd) { return sync_or_fail(fd, "fsync"); }
int fdatasync(int fd) { return sync_or_fail(fd, "fdatasync"); }
