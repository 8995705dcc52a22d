/* Records what a process does to the files below one directory, and what it says on
 * the connections it accepted, in the order in which it happened.
 *
 * What for:    the proofs in tests/it/power: that an acknowledgement leaves only after
 *              the sync that covers it, and what a power cut at any moment could leave.
 * Called by:   the tests, which compile it (cc -shared -fPIC -O2) and name it in
 *              LD_PRELOAD of the process under test. Environment: HOLDFAST_RECORD_DIR,
 *              the directory; HOLDFAST_RECORD_LOG, the file that is appended to. Without
 *              both it does nothing.
 * Guarantees:
 * - A call that changes files or names is made and logged under one lock: the log's
 *   order is the order of the changes, and the record stands when the call returns.
 * - fsync and fdatasync have a record before the call and one after it. A sync covers
 *   what is logged before its start, and counts from its end: both err to the strict
 *   side.
 * - A send has its record before the call, with its first SOCKET_BYTES bytes, and one
 *   after it with the result: no byte of it was out before the first record.
 * - A receive has its record after the call, before the caller sees the bytes.
 * - What it cannot follow (shared writable mappings but SQLite's -shm, links, copies in
 *   the kernel) is logged as FOREIGN, which the tests refuse. What goes past libc is not
 *   seen: for that the tests replay the log and compare with the real directory, and
 *   each sync and close notes the real size of its file.
 * - Descriptors that are not tracked take no lock (signal handlers write to some).
 * - A log that cannot be written ends the process: a proof needs all of it.
 *
 * A record, little-endian: u32 kind, u32 bytes of the first part, u32 of the second,
 * u32 zero, u64 number in this process, u64 handle, u64 a, u64 b; then the parts. A
 * handle names an open file or a connection, and is never used twice. The meaning of
 * a and b stands beside each kind; tests/it/power/log.rs reads it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum kind {
    START = 1,   /* a: pid; first part: the directory */
    OPEN = 2,    /* a: 1 created, 2 cut to nothing, 4 may write; first part: path */
    CLOSE = 3,   /* a: size, or -1 */
    WRITE = 4,   /* a: offset; second part: the bytes */
    RESIZE = 5,  /* a: new size */
    EXTEND = 6,  /* a: end of what fallocate covers; the file is at least so long */
    SYNC = 7,    /* a: size, or -1; b: 1 for fdatasync */
    SYNCED = 8,  /* a: number of the SYNC; b: 0 when it succeeded */
    RENAME = 9,  /* first part: from; second: to */
    UNLINK = 10, /* first part: path */
    MKDIR = 11,  /* first part: path */
    RMDIR = 12,  /* first part: path */
    ACCEPT = 13, /* a: the peer's port */
    SEND = 14,   /* a: bytes in all; second part: the first of them */
    SENT = 15,   /* a: number of the SEND; b: result */
    RECV = 16,   /* a: bytes in all; second part: the first of them */
    HANGUP = 17, /* a connection was closed */
    FOREIGN = 18, /* first part: what was done and cannot be followed */
    BOUND = 19    /* a socket of the file system; first part: path */
};

enum { FDS = 1 << 16, SOCKET_BYTES = 16 << 10, RECV_BYTES = 4 << 10 };
enum fd_kind { UNTRACKED = 0, A_FILE = 1, A_SOCKET = 2 };

struct head {
    uint32_t kind, first, second, zero;
    uint64_t number, handle, a, b;
};

static struct { _Atomic int kind; _Atomic uint64_t handle; } fds[FDS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_len;
static int log_fd = -1;
static uint64_t numbers, handles;

static void lock(void) { pthread_mutex_lock(&mutex); }
static void unlock(void) {
    int saved = errno;
    pthread_mutex_unlock(&mutex);
    errno = saved;
}

static void die(const char *what) {
    char text[200];
    int n = snprintf(text, sizeof text, "record.c: %s: %s\n", what, strerror(errno));
    syscall(SYS_write, 2, text, n);
    abort();
}

/* Appends a record; call it under the lock. Its number. */
static uint64_t note(enum kind kind, uint64_t handle, uint64_t a, uint64_t b, const char *first,
                     const struct iovec *second, int seconds, size_t second_max) {
    int saved = errno;
    struct iovec out[1030];
    struct head head = {kind, first ? strlen(first) : 0, 0, 0, numbers, handle, a, b};
    out[0] = (struct iovec){&head, sizeof head};
    out[1] = (struct iovec){(void *)first, head.first};
    int n = 2;
    for (int i = 0; i < seconds && second_max > 0 && n < 1026; i++) {
        size_t len = second[i].iov_len < second_max ? second[i].iov_len : second_max;
        out[n++] = (struct iovec){second[i].iov_base, len};
        head.second += len;
        second_max -= len;
    }
    size_t total = 0, at = 0;
    for (int i = 0; i < n; i++) total += out[i].iov_len;
    for (int i = 0; at < total;) {
        /* At most 1024 pieces a call; the log is a plain file, short writes mean a full disk. */
        int take = n - i < 1024 ? n - i : 1024;
        size_t want = 0;
        for (int j = i; j < i + take; j++) want += out[j].iov_len;
        if (syscall(SYS_writev, log_fd, out + i, take) != (long)want) die("cannot write the log");
        at += want;
        i += take;
    }
    errno = saved;
    return numbers++;
}

static uint64_t brief(enum kind kind, uint64_t handle, uint64_t a, uint64_t b, const char *first) {
    return note(kind, handle, a, b, first, NULL, 0, 0);
}

__attribute__((constructor)) static void start(void) {
    const char *dir = getenv("HOLDFAST_RECORD_DIR"), *log = getenv("HOLDFAST_RECORD_LOG");
    if (!dir || !log) return;
    if (!realpath(dir, root)) die("HOLDFAST_RECORD_DIR");
    root_len = strlen(root);
    int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) die("HOLDFAST_RECORD_LOG");
    handles = (uint64_t)getpid() << 32;
    lock();
    log_fd = fd;
    brief(START, 0, getpid(), 0, root);
    unlock();
}

static int kind_of(int fd) { return fd >= 0 && fd < FDS ? fds[fd].kind : UNTRACKED; }

static uint64_t track(int fd, enum fd_kind kind) {
    if (fd >= FDS) die("too many descriptors");
    fds[fd].handle = ++handles;
    fds[fd].kind = kind;
    return handles;
}

/* The path below the directory; NULL when it is elsewhere. "" is the directory itself. */
static const char *below(int dir, const char *path, char out[PATH_MAX]) {
    if (log_fd < 0 || !path) return NULL;
    char base[PATH_MAX] = "", link[64], full[2 * PATH_MAX + 2];
    /* The short form of a long path: an open directory's. */
    if (!strncmp(path, "/proc/self/fd/", 14)) {
        char *rest;
        dir = strtol(path + 14, &rest, 10);
        path = *rest == '/' ? rest + 1 : rest;
    }
    if (path[0] != '/') {
        if (dir == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return NULL;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
            ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
            if (n <= 0) return NULL;
            base[n] = 0;
        }
    }
    snprintf(full, sizeof full, "%s/%s", base, path);
    /* Empty and "." parts go. */
    size_t n = 0;
    for (char *part = full, *rest; part; part = rest) {
        rest = strchr(part, '/');
        if (rest) *rest++ = 0;
        if (!*part || !strcmp(part, ".")) continue;
        size_t len = strlen(part);
        if (n + len + 2 > PATH_MAX) return NULL;
        out[n++] = '/';
        memcpy(out + n, part, len);
        n += len;
    }
    out[n] = 0;
    if (strncmp(out, root, root_len)) return NULL;
    if (out[root_len] == 0) return "";
    return out[root_len] == '/' ? out + root_len + 1 : NULL;
}

static uint64_t size_of(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : UINT64_MAX;
}

/* ---- files and names ---- */

static int open_any(int dir, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    int saved = errno;
    const char *name = below(dir, path, buffer);
    errno = saved;
    if (!name) return syscall(SYS_openat, dir, path, flags, mode);
    lock();
    int existed = faccessat(dir, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    errno = saved;
    int fd = syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= 0) {
        if ((flags & O_TMPFILE) == O_TMPFILE) brief(FOREIGN, 0, 0, 0, "O_TMPFILE");
        int created = (flags & O_CREAT) && !existed;
        int cut = (flags & O_TRUNC) && existed;
        int writes = (flags & O_ACCMODE) != O_RDONLY;
        brief(OPEN, track(fd, A_FILE), created | cut << 1 | writes << 2, 0, name);
    }
    unlock();
    return fd;
}

#define MODE(last) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list args; va_start(args, last); mode = va_arg(args, int); va_end(args); }

int open(const char *path, int flags, ...) { MODE(flags) return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_any(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags) return open_any(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags) return open_any(dir, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }
int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }

int close(int fd) {
    int kind = kind_of(fd);
    if (kind == UNTRACKED) return syscall(SYS_close, fd);
    lock();
    uint64_t handle = fds[fd].handle, size = kind == A_FILE ? size_of(fd) : 0;
    fds[fd].kind = UNTRACKED;
    int result = syscall(SYS_close, fd);
    brief(kind == A_FILE ? CLOSE : HANGUP, handle, size, 0, NULL);
    unlock();
    return result;
}

/* Closes the directory's descriptor inside libc, where no other function of ours sees it. */
int closedir(DIR *dir) {
    static int (*next)(DIR *);
    if (!next) next = (int (*)(DIR *))dlsym(RTLD_NEXT, "closedir");
    int fd = dirfd(dir);
    if (kind_of(fd) == UNTRACKED) return next(dir);
    lock();
    uint64_t handle = fds[fd].handle;
    fds[fd].kind = UNTRACKED;
    int result = next(dir);
    brief(CLOSE, handle, UINT64_MAX, 0, NULL);
    unlock();
    return result;
}

static int duplicate(int fd, int copy) {
    if (copy >= 0 && kind_of(fd) != UNTRACKED) {
        lock();
        if (copy >= FDS) die("too many descriptors");
        fds[copy].handle = fds[fd].handle;
        fds[copy].kind = fds[fd].kind;
        unlock();
    }
    return copy;
}
static int fcntl_any(int fd, int command, void *arg) {
    int result = syscall(SYS_fcntl, fd, command, arg);
    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? duplicate(fd, result) : result;
}
int fcntl(int fd, int command, ...) { va_list args; va_start(args, command); void *arg = va_arg(args, void *); va_end(args); return fcntl_any(fd, command, arg); }
int fcntl64(int fd, int command, ...) { va_list args; va_start(args, command); void *arg = va_arg(args, void *); va_end(args); return fcntl_any(fd, command, arg); }
int dup(int fd) { return duplicate(fd, syscall(SYS_dup, fd)); }

static ssize_t sending(int fd, const struct iovec *pieces, int count, long (*call)(int, const void *, size_t, int), const void *what, size_t n, int flags) {
    size_t total = 0;
    for (int i = 0; i < count; i++) total += pieces[i].iov_len;
    lock();
    uint64_t handle = fds[fd].handle;
    uint64_t number = note(SEND, handle, total, 0, NULL, pieces, count, SOCKET_BYTES);
    unlock();
    long result = call(fd, what, n, flags);
    lock();
    brief(SENT, handle, number, (uint64_t)result, NULL);
    unlock();
    return result;
}
static long call_send(int fd, const void *data, size_t n, int flags) { return syscall(SYS_sendto, fd, data, n, flags, NULL, 0); }
static long call_write(int fd, const void *data, size_t n, int flags) { (void)flags; return syscall(SYS_write, fd, data, n); }
static long call_writev(int fd, const void *pieces, size_t n, int flags) { (void)flags; return syscall(SYS_writev, fd, pieces, n); }
static long call_sendmsg(int fd, const void *message, size_t n, int flags) { (void)n; return syscall(SYS_sendmsg, fd, message, flags); }

/* After a write under the lock. */
static ssize_t written(int fd, ssize_t result, off_t offset, const struct iovec *pieces, int count) {
    if (result > 0) {
        int saved = errno;
        if (offset < 0) offset = lseek(fd, 0, SEEK_CUR) - result;
        if (offset < 0) die("a descriptor was closed unseen");
        errno = saved;
        note(WRITE, fds[fd].handle, offset, 0, NULL, pieces, count, result);
    }
    return result;
}

ssize_t write(int fd, const void *data, size_t n) {
    struct iovec piece = {(void *)data, n};
    int kind = kind_of(fd);
    if (kind == UNTRACKED) return syscall(SYS_write, fd, data, n);
    if (kind == A_SOCKET) return sending(fd, &piece, 1, call_write, data, n, 0);
    lock();
    ssize_t result = written(fd, syscall(SYS_write, fd, data, n), -1, &piece, 1);
    unlock();
    return result;
}
ssize_t writev(int fd, const struct iovec *pieces, int count) {
    int kind = kind_of(fd);
    if (kind == UNTRACKED) return syscall(SYS_writev, fd, pieces, count);
    if (kind == A_SOCKET) return sending(fd, pieces, count, call_writev, pieces, count, 0);
    lock();
    ssize_t result = written(fd, syscall(SYS_writev, fd, pieces, count), -1, pieces, count);
    unlock();
    return result;
}
ssize_t pwrite64(int fd, const void *data, size_t n, off_t offset) {
    if (kind_of(fd) != A_FILE) return syscall(SYS_pwrite64, fd, data, n, offset);
    struct iovec piece = {(void *)data, n};
    lock();
    ssize_t result = written(fd, syscall(SYS_pwrite64, fd, data, n, offset), offset, &piece, 1);
    unlock();
    return result;
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) { return pwrite64(fd, data, n, offset); }
ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off_t offset) {
    if (kind_of(fd) != A_FILE) return syscall(SYS_pwritev, fd, pieces, count, offset, 0);
    lock();
    ssize_t result = written(fd, syscall(SYS_pwritev, fd, pieces, count, offset, 0), offset, pieces, count);
    unlock();
    return result;
}
ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) { return pwritev64(fd, pieces, count, offset); }

int ftruncate64(int fd, off_t size) {
    if (kind_of(fd) != A_FILE) return syscall(SYS_ftruncate, fd, size);
    lock();
    int result = syscall(SYS_ftruncate, fd, size);
    if (result == 0) brief(RESIZE, fds[fd].handle, size, 0, NULL);
    unlock();
    return result;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int truncate64(const char *path, off_t size) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    int result = ftruncate64(fd, size);
    close(fd);
    return result;
}
int truncate(const char *path, off_t size) { return truncate64(path, size); }

int fallocate64(int fd, int mode, off_t offset, off_t len) {
    if (kind_of(fd) != A_FILE) return syscall(SYS_fallocate, fd, mode, offset, len);
    lock();
    int result = syscall(SYS_fallocate, fd, mode, offset, len);
    if (result == 0 && mode == 0) brief(EXTEND, fds[fd].handle, offset + len, 0, NULL);
    if (result == 0 && mode & ~FALLOC_FL_KEEP_SIZE) brief(FOREIGN, 0, 0, 0, "fallocate with a mode");
    unlock();
    return result;
}
int fallocate(int fd, int mode, off_t offset, off_t len) { return fallocate64(fd, mode, offset, len); }
int posix_fallocate64(int fd, off_t offset, off_t len) {
    int saved = errno, result = fallocate64(fd, 0, offset, len) == 0 ? 0 : errno;
    errno = saved;
    return result;
}
int posix_fallocate(int fd, off_t offset, off_t len) { return posix_fallocate64(fd, offset, len); }

static int sync_any(int fd, int data_only) {
    long call = data_only ? SYS_fdatasync : SYS_fsync;
    if (kind_of(fd) != A_FILE) return syscall(call, fd);
    lock();
    uint64_t handle = fds[fd].handle;
    uint64_t number = brief(SYNC, handle, size_of(fd), data_only, NULL);
    unlock();
    int result = syscall(call, fd);
    lock();
    brief(SYNCED, handle, number, result != 0, NULL);
    unlock();
    return result;
}
int fsync(int fd) { return sync_any(fd, 0); }
int fdatasync(int fd) { return sync_any(fd, 1); }
/* Counts for nothing: neither the disk's cache nor the size is safe after it. */
int sync_file_range(int fd, off_t offset, off_t len, unsigned flags) { return syscall(SYS_sync_file_range, fd, offset, len, flags); }

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    const char *old = below(from_dir, from, from_buffer), *new = below(to_dir, to, to_buffer);
    if (!old && !new) return syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    lock();
    int result = syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (result == 0) {
        if (!old || !new || flags & ~RENAME_NOREPLACE) brief(FOREIGN, 0, 0, 0, "rename over the border, or with flags");
        else {
            struct iovec piece = {(void *)new, strlen(new)};
            note(RENAME, 0, 0, 0, old, &piece, 1, PATH_MAX);
        }
    }
    unlock();
    return result;
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) { return renameat2(from_dir, from, to_dir, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

static int named(enum kind kind, int dir, const char *path, long call, long arg) {
    char buffer[PATH_MAX];
    const char *name = below(dir, path, buffer);
    if (!name) return syscall(call, dir, path, arg);
    lock();
    int result = syscall(call, dir, path, arg);
    if (result == 0) brief(kind, 0, 0, 0, name);
    unlock();
    return result;
}
int unlinkat(int dir, const char *path, int flags) { return named(flags & AT_REMOVEDIR ? RMDIR : UNLINK, dir, path, SYS_unlinkat, flags); }
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int result = unlink(path);
    return result == 0 || errno != EISDIR ? result : rmdir(path);
}
int mkdirat(int dir, const char *path, mode_t mode) { return named(MKDIR, dir, path, SYS_mkdirat, mode); }
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* ---- what cannot be followed ---- */

static void foreign(const char *what) {
    lock();
    brief(FOREIGN, 0, 0, 0, what);
    unlock();
}
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char buffer[PATH_MAX];
    if (below(to_dir, to, buffer)) foreign("link");
    return syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int symlink(const char *from, const char *to) {
    char buffer[PATH_MAX];
    if (below(AT_FDCWD, to, buffer)) foreign("symlink");
    return syscall(SYS_symlinkat, from, AT_FDCWD, to);
}
ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t n, unsigned flags) {
    if (kind_of(out) == A_FILE) foreign("copy_file_range");
    return syscall(SYS_copy_file_range, in, in_at, out, out_at, n, flags);
}
ssize_t sendfile64(int out, int in, off_t *offset, size_t n) {
    if (kind_of(out) != UNTRACKED) foreign("sendfile");
    return syscall(SYS_sendfile, out, in, offset, n);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t n) { return sendfile64(out, in, offset, n); }
void *mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    if (fd >= 0 && kind_of(fd) == A_FILE && flags & MAP_SHARED && protection & PROT_WRITE) {
        char link[64], path[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t len = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
        if (len < 4 || memcmp(path + len - 4, "-shm", 4)) foreign("shared writable mapping");
    }
    return (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
}
void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) { return mmap64(at, n, protection, flags, fd, offset); }

/* ---- connections ---- */

int bind(int fd, const struct sockaddr *address, socklen_t len) {
    char text[sizeof(struct sockaddr_un) + 1] = "", buffer[PATH_MAX];
    const char *name = NULL;
    if (address && address->sa_family == AF_UNIX && len > offsetof(struct sockaddr_un, sun_path)) {
        size_t n = len - offsetof(struct sockaddr_un, sun_path);
        if (n >= sizeof text) n = sizeof text - 1;
        memcpy(text, ((const struct sockaddr_un *)address)->sun_path, n);
        if (text[0]) name = below(AT_FDCWD, text, buffer);
    }
    if (!name) return syscall(SYS_bind, fd, address, len);
    lock();
    int result = syscall(SYS_bind, fd, address, len);
    if (result == 0) brief(BOUND, 0, 0, 0, name);
    unlock();
    return result;
}

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags) {
    int accepted = syscall(SYS_accept4, fd, address, len, flags);
    if (accepted >= 0 && log_fd >= 0) {
        int saved = errno;
        struct sockaddr_storage peer = {0};
        socklen_t n = sizeof peer;
        if (getpeername(accepted, (struct sockaddr *)&peer, &n) == 0 && (peer.ss_family == AF_INET || peer.ss_family == AF_INET6)) {
            uint16_t port = peer.ss_family == AF_INET ? ((struct sockaddr_in *)&peer)->sin_port : ((struct sockaddr_in6 *)&peer)->sin6_port;
            lock();
            brief(ACCEPT, track(accepted, A_SOCKET), ntohs(port), 0, NULL);
            unlock();
        }
        errno = saved;
    }
    return accepted;
}
int accept(int fd, struct sockaddr *address, socklen_t *len) { return accept4(fd, address, len, 0); }

ssize_t send(int fd, const void *data, size_t n, int flags) {
    if (kind_of(fd) != A_SOCKET) return call_send(fd, data, n, flags);
    struct iovec piece = {(void *)data, n};
    return sending(fd, &piece, 1, call_send, data, n, flags);
}
ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *to, socklen_t len) {
    if (kind_of(fd) != A_SOCKET) return syscall(SYS_sendto, fd, data, n, flags, to, len);
    return send(fd, data, n, flags);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    if (kind_of(fd) != A_SOCKET) return syscall(SYS_sendmsg, fd, message, flags);
    return sending(fd, message->msg_iov, message->msg_iovlen, call_sendmsg, message, 0, flags);
}

static ssize_t received(int fd, ssize_t result, const struct iovec *pieces, int count) {
    if (result > 0 && kind_of(fd) == A_SOCKET) {
        size_t max = result < RECV_BYTES ? (size_t)result : RECV_BYTES;
        lock();
        note(RECV, fds[fd].handle, result, 0, NULL, pieces, count, max);
        unlock();
    }
    return result;
}
ssize_t recv(int fd, void *data, size_t n, int flags) {
    struct iovec piece = {data, n};
    ssize_t result = syscall(SYS_recvfrom, fd, data, n, flags, NULL, NULL);
    return flags & MSG_PEEK ? result : received(fd, result, &piece, 1);
}
ssize_t recvfrom(int fd, void *data, size_t n, int flags, struct sockaddr *from, socklen_t *len) {
    struct iovec piece = {data, n};
    ssize_t result = syscall(SYS_recvfrom, fd, data, n, flags, from, len);
    return flags & MSG_PEEK ? result : received(fd, result, &piece, 1);
}
ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    ssize_t result = syscall(SYS_recvmsg, fd, message, flags);
    return flags & MSG_PEEK ? result : received(fd, result, message->msg_iov, message->msg_iovlen);
}
ssize_t read(int fd, void *data, size_t n) {
    struct iovec piece = {data, n};
    return received(fd, syscall(SYS_read, fd, data, n), &piece, 1);
}
ssize_t readv(int fd, const struct iovec *pieces, int count) {
    return received(fd, syscall(SYS_readv, fd, pieces, count), pieces, count);
}
