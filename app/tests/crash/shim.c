/* Counts the calls by which a program changes files below CRASH_ROOT, and makes the CRASH_AT-th one fail in the way that
 * CRASH_HOW names:
 *
 *   count   nothing; at the end, the number of calls is written to the file CRASH_COUNT
 *   kill    SIGKILL before the call
 *   tear    half of a write, then SIGKILL; before any other call
 *   short   half of a write, which is legal; before any other call nothing
 *   full    ENOSPC        io    EIO        denied    EACCES
 *   power   SIGKILL, and everything that was not synced is undone: data and names
 *   data    as power, but only the data: names have reached the disk first
 *   names   as power, but only the names
 *
 * For the last three, each call that creates, renames or removes a name is kept in a list with its inverse until the
 * folder is synced, and each file with the length up to which it was synced. Loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static const char *root, *how = "";
static long at, calls;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* A change of names that is not on the disk yet. */
struct change { char kind; char *from, *to, *backup; };
static struct change changes[65536];
static int change_count;

/* A file that was opened for writing. */
struct file { dev_t dev; ino_t ino; int fd; off_t synced; };
static struct file files[4096];
static int file_count;

__attribute__((constructor)) static void begin(void) {
    root = getenv("CRASH_ROOT");
    if (getenv("CRASH_HOW")) how = getenv("CRASH_HOW");
    at = getenv("CRASH_AT") ? atol(getenv("CRASH_AT")) : 0;
}

__attribute__((destructor)) static void end(void) {
    const char *name = getenv("CRASH_COUNT");
    if (!name || !root) return;
    FILE *out = fopen(name, "w");
    if (out) { fprintf(out, "%ld\n", calls); fclose(out); }
}

static int is(const char *name) { return strcmp(how, name) == 0; }
static int keeps_list(void) { return is("power") || is("data") || is("names"); }

static int below(const char *path) { return root && strncmp(path, root, strlen(root)) == 0; }

/* The absolute path of `path` relative to the folder `dir`, with the folder's links resolved; 0 if it is outside. */
static int full(int dir, const char *path, char *out) {
    char folder[PATH_MAX] = "", joined[2 * PATH_MAX];
    if (path[0] != '/') {
        char link[64];
        if (dir == AT_FDCWD) { if (!getcwd(folder, sizeof folder)) return 0; }
        else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
            ssize_t n = readlink(link, folder, sizeof folder - 1);
            if (n < 0) return 0;
            folder[n] = 0;
        }
        snprintf(joined, sizeof joined, "%s/%s", folder, path);
    } else snprintf(joined, sizeof joined, "%s", path);
    char *slash = strrchr(joined, '/');
    char resolved[PATH_MAX];
    if (slash == joined) return 0;
    *slash = 0;
    if (!realpath(joined, resolved)) return 0;
    snprintf(out, PATH_MAX, "%s/%s", resolved, slash + 1);
    return below(out);
}

static int path_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    if (n < 0) return 0;
    out[n] = 0;
    return below(out);
}

static void remove_tree(const char *path) {
    DIR *folder = opendir(path);
    if (folder) {
        struct dirent *entry;
        while ((entry = readdir(folder))) {
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
            char inner[2 * PATH_MAX];
            snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
            struct stat about;
            if (!lstat(inner, &about) && S_ISDIR(about.st_mode)) remove_tree(inner);
            else { REAL(int, "unlink", const char *); real(inner); }
        }
        closedir(folder);
    }
    REAL(int, "rmdir", const char *);
    real(path);
}

static char *backup_name(void) {
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s/.crash-backup-%d", root, change_count);
    return strdup(name);
}

/* Undoes what a power cut would: the data first, then the names, the newest first. */
static void lose_power(void) {
    if (!is("names"))
        for (int i = 0; i < file_count; i++) {
            struct stat about;
            if (!fstat(files[i].fd, &about) && about.st_size > files[i].synced) {
                REAL(int, "ftruncate64", int, off_t);
                real(files[i].fd, files[i].synced);
            }
        }
    REAL(int, "rename", const char *, const char *);
    for (int i = change_count - 1; i >= 0; i--) {
        struct change *c = &changes[i];
        if (!is("data")) {
            if (c->kind == 'c') { REAL(int, "unlink", const char *); real(c->from); }
            if (c->kind == 'm') remove_tree(c->from);
            if (c->kind == 'd') { REAL(int, "mkdir", const char *, mode_t); real(c->from, 0777); }
            if (c->kind == 'u' && c->backup) real(c->backup, c->from);
            if (c->kind == 'r') { real(c->to, c->from); if (c->backup) real(c->backup, c->to); }
        }
        if (c->backup) { REAL(int, "unlink", const char *); real(c->backup); }
    }
}

static void die(void) {
    if (keeps_list()) lose_power();
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Counts a call. Returns an errno if it must fail, -1 if only half of a write must happen, else 0. */
static int turn(int writes) {
    calls++;
    if (calls != at || is("count")) return 0;
    if (is("tear") && writes) return -1;
    if (is("short")) return writes ? -1 : 0;
    if (is("full")) return ENOSPC;
    if (is("io")) return EIO;
    if (is("denied")) return EACCES;
    die();
    return 0;
}

static void note(char kind, const char *from, const char *to, char *backup) {
    if (!keeps_list() || change_count == 65536) return;
    changes[change_count++] = (struct change){kind, strdup(from), to ? strdup(to) : 0, backup};
}

/* Keeps the content of `path` under another name, so that it can come back. */
static char *keep(const char *path) {
    if (!keeps_list()) return 0;
    char *backup = backup_name();
    REAL(int, "link", const char *, const char *);
    return real(path, backup) ? 0 : backup;
}

static void opened(int fd, const char *path, int existed) {
    struct stat about;
    if (!keeps_list() || fstat(fd, &about) || !S_ISREG(about.st_mode) || file_count == 4096) return;
    if (!existed) note('c', path, 0, 0);
    for (int i = 0; i < file_count; i++)
        if (files[i].dev == about.st_dev && files[i].ino == about.st_ino) return;
    files[file_count++] = (struct file){about.st_dev, about.st_ino, fcntl(fd, F_DUPFD_CLOEXEC, 200), about.st_size};
}

static int in_folder(const char *path, const char *folder) {
    size_t n = strlen(folder);
    return path && !strncmp(path, folder, n) && path[n] == '/' && !strchr(path + n + 1, '/');
}

static void synced(int fd) {
    struct stat about;
    if (!keeps_list() || fstat(fd, &about)) return;
    if (S_ISREG(about.st_mode)) {
        for (int i = 0; i < file_count; i++)
            if (files[i].dev == about.st_dev && files[i].ino == about.st_ino) files[i].synced = about.st_size;
        return;
    }
    char folder[PATH_MAX];
    if (!path_of(fd, folder) && strcmp(folder, root)) return;
    int kept = 0;
    for (int i = 0; i < change_count; i++) {
        struct change *c = &changes[i];
        if (in_folder(c->from, folder) || in_folder(c->to, folder)) {
            if (c->backup) { REAL(int, "unlink", const char *); real(c->backup); }
        } else changes[kept++] = *c;
    }
    change_count = kept;
}

#define ENTER pthread_mutex_lock(&lock)
#define LEAVE(value) do { int e = errno; pthread_mutex_unlock(&lock); errno = e; return value; } while (0)

static int open_at(int dir, const char *path, int flags, mode_t mode, int (*real)(int, const char *, int, ...)) {
    char name[PATH_MAX];
    int writes = (flags & O_ACCMODE) != O_RDONLY && (flags & O_TMPFILE) != O_TMPFILE;
    if (!writes || !full(dir, path, name)) return real(dir, path, flags, mode);
    ENTER;
    int existed = !access(name, F_OK);
    int wrong = (flags & O_CREAT) ? turn(0) : 0;
    if (wrong > 0) { errno = wrong; LEAVE(-1); }
    int fd = real(dir, path, flags, mode);
    if (fd >= 0) opened(fd, name, existed);
    LEAVE(fd);
}

static mode_t mode_of(int flags, va_list list) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, "openat64", int, const char *, int, ...); \
        va_list list; va_start(list, flags); mode_t mode = mode_of(flags, list); va_end(list); \
        return open_at(AT_FDCWD, path, flags, mode, real); \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        REAL(int, "openat64", int, const char *, int, ...); \
        va_list list; va_start(list, flags); mode_t mode = mode_of(flags, list); va_end(list); \
        return open_at(dir, path, flags, mode, real); \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    char name[PATH_MAX];
    if (!path_of(fd, name)) return real(fd, bytes, count);
    ENTER;
    int wrong = turn(1);
    if (wrong > 0) { errno = wrong; LEAVE(-1); }
    ssize_t done = real(fd, bytes, wrong ? (count + 1) / 2 : count);
    if (wrong && is("tear")) die();
    LEAVE(done);
}

#define ON_FD(result, name, extra_type, extra, after) \
    result name(int fd extra_type) { \
        REAL(result, #name, int extra_type); \
        char path[PATH_MAX]; \
        if (!path_of(fd, path) && !(root && !strcmp(path, root))) return real(fd extra); \
        ENTER; \
        int wrong = turn(0); \
        if (wrong > 0) { errno = wrong; LEAVE(-1); } \
        int done = real(fd extra); \
        if (!done) { after; } \
        LEAVE(done); \
    }
#define COMMA ,
ON_FD(int, fsync, , , synced(fd))
ON_FD(int, fdatasync, , , synced(fd))
ON_FD(int, ftruncate64, COMMA off_t length, COMMA length, (void)0)

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    char a[PATH_MAX], b[PATH_MAX];
    if (!full(AT_FDCWD, from, a) || !full(AT_FDCWD, to, b)) return real(from, to);
    ENTER;
    int wrong = turn(0);
    if (wrong > 0) { errno = wrong; LEAVE(-1); }
    char *backup = keep(b);
    int done = real(from, to);
    if (!done) note('r', a, b, backup);
    LEAVE(done);
}

static int unlink_at(int dir, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    char name[PATH_MAX];
    if (!full(dir, path, name)) return real(dir, path, flags);
    ENTER;
    int wrong = turn(0);
    if (wrong > 0) { errno = wrong; LEAVE(-1); }
    int folder = flags & AT_REMOVEDIR;
    char *backup = folder ? 0 : keep(name);
    int done = real(dir, path, flags);
    if (!done) note(folder ? 'd' : 'u', name, 0, backup);
    LEAVE(done);
}
int unlinkat(int dir, const char *path, int flags) { return unlink_at(dir, path, flags); }
int unlink(const char *path) { return unlink_at(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlink_at(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    char name[PATH_MAX];
    if (!full(AT_FDCWD, path, name)) return real(path, mode);
    ENTER;
    int wrong = turn(0);
    if (wrong > 0) { errno = wrong; LEAVE(-1); }
    int done = real(path, mode);
    if (!done) note('m', name, 0, 0);
    LEAVE(done);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    char name[PATH_MAX];
    if (!full(to_dir, to, name)) return real(from_dir, from, to_dir, to, flags);
    ENTER;
    int wrong = turn(0);
    if (wrong > 0) { errno = wrong; LEAVE(-1); }
    int done = real(from_dir, from, to_dir, to, flags);
    if (!done) note('c', name, 0, 0);
    LEAVE(done);
}
