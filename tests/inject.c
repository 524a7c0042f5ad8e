/* Kills a program, or makes an operation fail, at its Nth change of the file system. For tests of what is left then.
 *
 *   cc -shared -fPIC -o inject.so inject.c -ldl
 *   LD_PRELOAD=$PWD/inject.so INJECT=kill:3 INJECT_FIRED=fired program ..
 *
 * INJECT=kill:N ends it with SIGKILL before its Nth rename, link, removal or sync. INJECT=ENOSPC:N or EIO:N makes the Nth of
 * these, or of its writes to regular files, fail with this error. The file INJECT_FIRED is created when it happens.
 *
 * INJECT=read-only makes INJECT_FOLDER, and all paths that are relative, a read-only file system. (Folders without the right to
 * write do not stop root.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;
static long at;
static int error; /* 0: kill */
static const char *read_only;

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("INJECT");
    const char *colon = text ? strchr(text, ':') : NULL;
    if (text && !strcmp(text, "read-only")) read_only = getenv("INJECT_FOLDER");
    if (!colon && !read_only) return;
    at = colon ? atol(colon + 1) : 0;
    error = !strncmp(text, "ENOSPC:", 7) ? ENOSPC : !strncmp(text, "EIO:", 4) ? EIO : 0;
    /* Not in the programs that this one starts. */
    unsetenv("LD_PRELOAD");
}

/* Whether this path is in the read-only folder. */
static int locked(const char *path) {
    if (!read_only || (path[0] == '/' && strncmp(path, read_only, strlen(read_only)))) return 0;
    errno = EROFS;
    return 1;
}

/* Whether this call is to fail. */
static int due(void) {
    if (!at || atomic_fetch_add(&calls, 1) + 1 != at) return 0;
    const char *fired = getenv("INJECT_FIRED");
    if (fired) {
        int file = open(fired, O_CREAT | O_WRONLY, 0666);
        if (file >= 0) close(file);
    }
    if (!error) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = error;
    return 1;
}

static int regular(int file) {
    struct stat about;
    return error && !fstat(file, &about) && S_ISREG(about.st_mode);
}

#define REAL(type, name, ...) ((type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

static int opened(const char *path, int flags, mode_t mode) {
    if ((flags & (O_CREAT | O_WRONLY | O_RDWR)) && locked(path)) return -1;
    return REAL(int, open64, const char *, int, ...)(path, flags, mode);
}
#define MODE(flags)                                \
    mode_t mode = 0;                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {         \
        va_list list;                              \
        va_start(list, flags);                     \
        mode = va_arg(list, mode_t);               \
        va_end(list);                              \
    }
int open64(const char *path, int flags, ...) {
    MODE(flags)
    return opened(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    MODE(flags)
    return opened(path, flags | O_LARGEFILE, mode);
}
int mkdir(const char *path, mode_t mode) {
    return locked(path) ? -1 : REAL(int, mkdir, const char *, mode_t)(path, mode);
}
int rename(const char *a, const char *b) {
    return locked(b) || due() ? -1 : REAL(int, rename, const char *, const char *)(a, b);
}
int renameat(int d, const char *a, int e, const char *b) {
    return locked(b) || due() ? -1 : REAL(int, renameat, int, const char *, int, const char *)(d, a, e, b);
}
int renameat2(int d, const char *a, int e, const char *b, unsigned f) {
    return locked(b) || due() ? -1 : REAL(int, renameat2, int, const char *, int, const char *, unsigned)(d, a, e, b, f);
}
int linkat(int d, const char *a, int e, const char *b, int f) {
    return locked(b) || due() ? -1 : REAL(int, linkat, int, const char *, int, const char *, int)(d, a, e, b, f);
}
int link(const char *a, const char *b) {
    return locked(b) || due() ? -1 : REAL(int, link, const char *, const char *)(a, b);
}
int unlink(const char *a) {
    return locked(a) || due() ? -1 : REAL(int, unlink, const char *)(a);
}
int unlinkat(int d, const char *a, int f) {
    return due() ? -1 : REAL(int, unlinkat, int, const char *, int)(d, a, f);
}
int rmdir(const char *a) {
    return locked(a) || due() ? -1 : REAL(int, rmdir, const char *)(a);
}
int fsync(int file) {
    return due() ? -1 : REAL(int, fsync, int)(file);
}
int fdatasync(int file) {
    return due() ? -1 : REAL(int, fdatasync, int)(file);
}
ssize_t write(int file, const void *bytes, size_t length) {
    return regular(file) && due() ? -1 : REAL(ssize_t, write, int, const void *, size_t)(file, bytes, length);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
    return regular(file) && due() ? -1 : REAL(ssize_t, writev, int, const struct iovec *, int)(file, parts, count);
}
ssize_t pwrite(int file, const void *bytes, size_t length, off_t place) {
    return regular(file) && due() ? -1
                                  : REAL(ssize_t, pwrite, int, const void *, size_t, off_t)(file, bytes, length, place);
}
ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t place) {
    return regular(file) && due() ? -1
                                  : REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t)(file, bytes, length, place);
}
ssize_t copy_file_range(int from, off64_t *a, int file, off64_t *b, size_t length, unsigned flags) {
    return regular(file) && due()
               ? -1
               : REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned)(from, a, file, b,
                                                                                                  length, flags);
}
ssize_t sendfile(int file, int from, off_t *place, size_t length) {
    return regular(file) && due() ? -1 : REAL(ssize_t, sendfile, int, int, off_t *, size_t)(file, from, place, length);
}
ssize_t sendfile64(int file, int from, off64_t *place, size_t length) {
    return regular(file) && due() ? -1
                                  : REAL(ssize_t, sendfile64, int, int, off64_t *, size_t)(file, from, place, length);
}
