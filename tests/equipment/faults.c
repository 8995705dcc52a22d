/* Makes file operations of a process fail on demand: a library for LD_PRELOAD.
 *
 * What for:    tests of what the collector does when its disk is full or broken, at
 *              any step of the journal's life.
 * Called by:   tests/it/support/faults.rs, which compiles it with
 *              cc -shared -fPIC and writes the control file.
 * Control:     HOLDFAST_FAULTS names the control file. It is looked at before every
 *              call and read again when it has changed; without it nothing fails.
 *              Replace it by a rename. Each line is a rule:
 *
 *                  KIND GLOB FIRST COUNT ERRNO
 *
 *              KIND   open, create (an open that may create), write, truncate (and
 *                     allocate), fsync, fdatasync, range (sync_file_range), sync
 *                     (any of the three), rename, mkdir, unlink (and rmdir), any
 *              GLOB   the path, `*` also matches `/`; a rename matches by either path
 *              FIRST  the first matching call that fails, counted from 1 at each read
 *              COUNT  how many fail from there on, or * for all
 *              ERRNO  ENOSPC, EIO, EDQUOT, EROFS, EACCES; HANG does not fail, but waits
 *                     until the rules are replaced; with +short, the first
 *                     write that fails writes half of its bytes and says so, as a
 *                     disk does that gets full in the middle
 *
 * Guarantees:  every failed call is a line "KIND ERRNO PATH" in the control file's
 *              name + ".hits"; a failed call has done nothing (but see +short).
 * Limits:      only calls that go through the C library: Rust's std and SQLite do,
 *              rustix does not. 64-bit Linux.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* An "errno" beside the half write's -1. */
enum { HANG = -2 };

enum kind { OPEN = 1, CREATE = 2, WRITE = 4, TRUNCATE = 8, FSYNC = 16, FDATASYNC = 32,
            RANGE = 64, RENAME = 128, MKDIR = 256, UNLINK = 512 };

static const struct { const char *name; int kinds; } KINDS[] = {
    {"open", OPEN | CREATE}, {"create", CREATE}, {"write", WRITE},
    {"truncate", TRUNCATE}, {"fsync", FSYNC}, {"fdatasync", FDATASYNC},
    {"range", RANGE}, {"sync", FSYNC | FDATASYNC | RANGE}, {"rename", RENAME},
    {"mkdir", MKDIR}, {"unlink", UNLINK}, {"any", -1},
};

static const struct { const char *name; int number; } ERRNOS[] = {
    {"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS}, {"EACCES", EACCES},
    {"HANG", HANG},
};

#define RULES_MAX 32
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct rule {
    int kinds, number, is_short;
    char name[32], glob[PATH_MAX];
    long first, count, seen;
};

static struct rule rules[RULES_MAX];
static int rule_count, kinds_wanted, version;
static struct stat known;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *why, const char *what)
{
    fprintf(stderr, "faults: %s: %s\n", why, what);
    abort();
}

static void parse(char *line)
{
    char kind[16], number[32], count[32];
    struct rule *rule = &rules[rule_count];
    memset(rule, 0, sizeof *rule);
    if (rule_count == RULES_MAX ||
        sscanf(line, "%15s %4095s %ld %31s %31s", kind, rule->glob, &rule->first, count, number) != 5)
        die("bad rule", line);
    rule->count = strcmp(count, "*") ? atol(count) : LONG_MAX / 2;
    char *plus = strchr(number, '+');
    if (plus) {
        if (strcmp(plus, "+short"))
            die("bad rule", line);
        rule->is_short = 1;
        *plus = 0;
    }
    for (size_t i = 0; i < COUNT(KINDS); i++)
        if (!strcmp(kind, KINDS[i].name))
            rule->kinds = KINDS[i].kinds;
    for (size_t i = 0; i < COUNT(ERRNOS); i++)
        if (!strcmp(number, ERRNOS[i].name))
            rule->number = ERRNOS[i].number;
    if (!rule->kinds || !rule->number || rule->first < 1)
        die("bad rule", line);
    snprintf(rule->name, sizeof rule->name, "%s", number);
    kinds_wanted |= rule->kinds;
    rule_count++;
}

/* Under the lock: brings the rules up to date. */
static void refresh(const char *control)
{
    struct stat now;
    if (stat(control, &now) != 0)
        memset(&now, 0, sizeof now);
    if (now.st_ino == known.st_ino && now.st_size == known.st_size &&
        now.st_mtim.tv_sec == known.st_mtim.tv_sec && now.st_mtim.tv_nsec == known.st_mtim.tv_nsec)
        return;
    known = now;
    rule_count = kinds_wanted = 0;
    version++;
    int fd = now.st_ino ? syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (fd < 0)
        return;
    static char text[RULES_MAX * PATH_MAX];
    ssize_t length = read(fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    text[length > 0 ? length : 0] = 0;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")))
        if (*line)
            parse(line);
}

static void record(const char *control, int kind, const char *name, const char *path)
{
    const char *kind_name = "";
    for (size_t i = 0; i < COUNT(KINDS); i++)
        if (KINDS[i].kinds == kind)
            kind_name = KINDS[i].name;
    if (kind == OPEN)
        kind_name = "open";
    char file[PATH_MAX], line[PATH_MAX + 64];
    snprintf(file, sizeof file, "%s.hits", control);
    int length = snprintf(line, sizeof line, "%s %s %s\n", kind_name, name, path);
    int fd = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0 || syscall(SYS_write, fd, line, length) != length)
        die("cannot write", file);
    syscall(SYS_close, fd);
}

/* Under the lock: the errno for this call, 0 to let it through, -1 for half a write. */
static int decide(const char *control, int kind, const char *path)
{
    for (int i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];
        if (!(rule->kinds & kind) || fnmatch(rule->glob, path, 0) != 0)
            continue;
        rule->seen++;
        if (rule->seen < rule->first || rule->seen - rule->first >= rule->count)
            continue;
        record(control, kind, rule->name, path);
        return rule->is_short && kind == WRITE && rule->seen == rule->first ? -1 : rule->number;
    }
    return 0;
}

static void path_of_fd(int fd, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
}

static void path_at(int dir, const char *name, char *path)
{
    path[0] = 0;
    if (name[0] != '/') {
        if (dir == AT_FDCWD) {
            if (syscall(SYS_getcwd, path, PATH_MAX) < 0)
                path[0] = 0;
        } else {
            path_of_fd(dir, path);
        }
    }
    size_t length = strlen(path);
    snprintf(path + length, PATH_MAX - length, "%s%s", length ? "/" : "", name);
}

/* The verdict for a call on a path, and for a rename on a second one. */
static int verdict(int kind, int dir, const char *name, int dir2, const char *name2)
{
    const char *control = getenv("HOLDFAST_FAULTS");
    if (!control)
        return 0;
    int saved = errno, result = 0;
    pthread_mutex_lock(&lock);
    refresh(control);
    if (kinds_wanted & kind) {
        char path[PATH_MAX];
        if (name)
            path_at(dir, name, path);
        else
            path_of_fd(dir, path);
        result = decide(control, kind, path);
        if (!result && name2) {
            path_at(dir2, name2, path);
            result = decide(control, kind, path);
        }
    }
    for (int then = version; result == HANG; refresh(control)) {
        if (version != then) {
            result = 0;
            break;
        }
        pthread_mutex_unlock(&lock);
        usleep(10000);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    errno = result > 0 ? result : saved;
    return result;
}

static int by_path(int kind, int dir, const char *name) { return verdict(kind, dir, name, 0, NULL); }
static int by_fd(int kind, int fd) { return verdict(kind, fd, NULL, 0, NULL); }

static int do_open(int dir, const char *name, int flags, mode_t mode)
{
    if (by_path(flags & O_CREAT ? CREATE : OPEN, dir, name))
        return -1;
    return syscall(SYS_openat, dir, name, flags, mode);
}

#define MODE(flags, mode)                                   \
    mode_t mode = 0;                                        \
    if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) { \
        va_list list;                                       \
        va_start(list, flags);                              \
        mode = va_arg(list, mode_t);                        \
        va_end(list);                                       \
    }

int open(const char *name, int flags, ...) { MODE(flags, mode) return do_open(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags, mode) return do_open(AT_FDCWD, name, flags, mode); }
int openat(int dir, const char *name, int flags, ...) { MODE(flags, mode) return do_open(dir, name, flags, mode); }
int openat64(int dir, const char *name, int flags, ...) { MODE(flags, mode) return do_open(dir, name, flags, mode); }
int creat(const char *name, mode_t mode) { return do_open(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

static size_t allowed(int fd, size_t length, int *fails)
{
    int result = by_fd(WRITE, fd);
    *fails = result > 0 || (result < 0 && length < 2);
    if (result < 0 && length < 2)
        errno = ENOSPC;
    return result < 0 ? length / 2 : length;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    int fails;
    length = allowed(fd, length, &fails);
    return fails ? -1 : syscall(SYS_write, fd, bytes, length);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
    int fails;
    length = allowed(fd, length, &fails);
    return fails ? -1 : syscall(SYS_pwrite64, fd, bytes, length, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) { return pwrite(fd, bytes, length, at); }

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    int fails;
    if (allowed(fd, 2, &fails) == 1)
        count = count > 1 ? count / 2 : count;
    return fails ? -1 : syscall(SYS_writev, fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    int fails;
    if (allowed(fd, 2, &fails) == 1)
        count = count > 1 ? count / 2 : count;
    return fails ? -1 : syscall(SYS_pwritev, fd, parts, count, at, 0);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return pwritev(fd, parts, count, at); }

int ftruncate(int fd, off_t length) { return by_fd(TRUNCATE, fd) ? -1 : syscall(SYS_ftruncate, fd, length); }
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }
int fallocate(int fd, int mode, off_t at, off_t length)
{
    return by_fd(TRUNCATE, fd) ? -1 : syscall(SYS_fallocate, fd, mode, at, length);
}
int fallocate64(int fd, int mode, off_t at, off_t length) { return fallocate(fd, mode, at, length); }
/* This one gives the error as its result. */
int posix_fallocate(int fd, off_t at, off_t length) { return fallocate(fd, 0, at, length) ? errno : 0; }
int posix_fallocate64(int fd, off_t at, off_t length) { return posix_fallocate(fd, at, length); }

int fsync(int fd) { return by_fd(FSYNC, fd) ? -1 : syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return by_fd(FDATASYNC, fd) ? -1 : syscall(SYS_fdatasync, fd); }
int sync_file_range(int fd, off64_t at, off64_t length, unsigned flags)
{
    return by_fd(RANGE, fd) ? -1 : syscall(SYS_sync_file_range, fd, at, length, flags);
}

int renameat2(int dir, const char *from, int dir2, const char *to, unsigned flags)
{
    return verdict(RENAME, dir, from, dir2, to) ? -1 : syscall(SYS_renameat2, dir, from, dir2, to, flags);
}
int renameat(int dir, const char *from, int dir2, const char *to) { return renameat2(dir, from, dir2, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int mkdirat(int dir, const char *name, mode_t mode)
{
    return by_path(MKDIR, dir, name) ? -1 : syscall(SYS_mkdirat, dir, name, mode);
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int unlinkat(int dir, const char *name, int flags)
{
    return by_path(UNLINK, dir, name) ? -1 : syscall(SYS_unlinkat, dir, name, flags);
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
