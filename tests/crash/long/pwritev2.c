/* Lets libfiu fail pwritev2, which is what os.pwritev calls and libfiu's own library leaves
 * out. The point of failure is posix/io/rw/pwritev2; posix/io/rw/pwritev2/reduce writes less
 * than was asked for. Built by the tests:  cc -shared -fPIC -DFIU_ENABLE pwritev2.c -lfiu -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fiu.h>
#include <stdint.h>
#include <sys/uio.h>

typedef ssize_t call(int, const struct iovec *, int, off64_t, int);

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags)
{
    static call *really;

    if (!really)
        really = (call *) dlsym(RTLD_NEXT, "pwritev64v2");
    if (fiu_fail("posix/io/rw/pwritev2")) {
        errno = (int) (intptr_t) fiu_failinfo();
        return -1;
    }
    if (parts[0].iov_len > 1 && fiu_fail("posix/io/rw/pwritev2/reduce")) {
        struct iovec less = { parts[0].iov_base, parts[0].iov_len / 2 };
        return really(fd, &less, 1, at, flags);
    }
    return really(fd, parts, count, at, flags);
}
