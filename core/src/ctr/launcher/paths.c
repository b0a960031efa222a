/* Paths beneath the container's root, which the image and others may change while we look.
 *
 * Whatever the kernel resolves here is resolved by openat2(2) with RESOLVE_IN_ROOT and
 * without magic links: nothing can lead out of the root.  Missing components are made one at
 * a time through the descriptor of their folder (CVE-2024-45310).
 */
#include <limits.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include "launcher.h"
#include "syscalls.h"

/* from linux/magic.h, which lacks some of them in older headers */
#define PROCFS 0x9fa0
#define CGROUPFS 0x27e0eb
#define CGROUP2FS 0x63677270
#define NSFS 0x6e736673

#define MAX_LINKS 40 /* as the kernel's own limit */
#define RETRIES 64   /* openat2 fails with EAGAIN while somebody renames */

static int root_of(struct run *run)
{
	if (run->root < 0)
		run->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return run->root;
}

static int open_in(int root, const char *path, int flags, uint64_t resolve)
{
	int fd, turn;

	for (turn = 0; turn < RETRIES; turn++) {
		fd = openat2(root, path, (uint64_t)flags, IN_ROOT | NO_MAGICLINKS | resolve);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return fd;
}

int open_beneath(struct run *run, const char *path, int flags)
{
	return open_in(root_of(run), path, flags, 0);
}

int open_path(struct run *run, const char *path, int flags)
{
	return run->pivoted ? open_beneath(run, path, flags) : open(path, flags | O_CLOEXEC);
}

/* A walk that makes what is missing.  `done` is the path so far, free of links; `rest` what
 * is still to come, links replaced by what they say. */
struct walk {
	char done[PATH_MAX];
	char rest[PATH_MAX];
	int links;
	bool created;
};

/* Splits the first component off `rest`; false when there is none left. */
static bool next_component(struct walk *walk, char *name)
{
	size_t length;
	char *start = walk->rest;

	start += strspn(start, "/");
	length = strcspn(start, "/");
	if (length == 0 || length > NAME_MAX) {
		errno = length ? ENAMETOOLONG : 0;
		return false;
	}
	memcpy(name, start, length);
	name[length] = 0;
	memmove(walk->rest, start + length, strlen(start + length) + 1);
	return true;
}

static bool last_component(const struct walk *walk)
{
	return walk->rest[strspn(walk->rest, "/")] == 0;
}

/* Puts a link's text before the rest of the walk. */
static int follow(struct walk *walk, int link)
{
	char text[PATH_MAX];
	ssize_t length = readlinkat(link, "", text, sizeof(text));

	if (length < 0)
		return -1;
	if (++walk->links > MAX_LINKS) {
		errno = ELOOP;
		return -1;
	}
	if ((size_t)length + 1 + strlen(walk->rest) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memmove(walk->rest + length + 1, walk->rest, strlen(walk->rest) + 1);
	memcpy(walk->rest, text, (size_t)length);
	walk->rest[length] = '/';
	if (text[0] == '/')
		walk->done[0] = 0;
	return 0;
}

/* Makes `name` in the folder `done`, which is free of links or somebody plays tricks. */
static int make(struct run *run, const struct walk *walk, const char *name, enum create create)
{
	const char *done = walk->done[0] ? walk->done : "/";
	int folder = open_in(root_of(run), done, O_PATH | O_DIRECTORY, NO_SYMLINKS);
	int made;

	if (folder < 0)
		return -1;
	if (create != CREATE_FILE) {
		made = mkdirat(folder, name, 0755);
	} else {
		made = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			      0644);
		if (made >= 0)
			made = close(made);
	}
	return closing(folder, made);
}

static int enter(struct walk *walk, const char *name)
{
	size_t length = strlen(walk->done);

	if (length + strlen(name) + 2 > PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	walk->done[length] = '/';
	strcpy(walk->done + length + 1, name);
	return 0;
}

static int step(struct run *run, struct walk *walk, const char *name, enum create create)
{
	struct stat status;
	char *slash;
	size_t length = strlen(walk->done);
	int fd, result = 0;

	if (strcmp(name, ".") == 0)
		return 0;
	if (strcmp(name, "..") == 0) {
		slash = strrchr(walk->done, '/');
		if (slash)
			*slash = 0;
		return 0;
	}
	if (enter(walk, name) < 0)
		return -1;
	fd = open_in(root_of(run), walk->done, O_PATH | O_NOFOLLOW, 0);
	if (fd < 0) {
		if (errno != ENOENT || create == CREATE_NOTHING)
			return -1;
		walk->done[length] = 0;
		if (make(run, walk, name, last_component(walk) ? create : CREATE_DIRECTORY) < 0)
			return -1;
		walk->created = last_component(walk);
		return enter(walk, name);
	}
	if (fstat(fd, &status) < 0) {
		result = -1;
	} else if (S_ISLNK(status.st_mode)) {
		walk->done[length] = 0;
		result = follow(walk, fd);
	}
	close(fd);
	return result;
}

int open_target(struct run *run, const char *path, enum create create, bool *created)
{
	struct walk walk = {.links = 0};
	char name[NAME_MAX + 1];
	int fd = open_in(root_of(run), path, O_PATH,
			 create == CREATE_PLAIN_DIRECTORY ? NO_SYMLINKS : 0);

	if (created)
		*created = false;
	if (fd >= 0 || errno != ENOENT || create == CREATE_NOTHING)
		return fd;
	if (strlen(path) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(walk.rest, path);
	while (next_component(&walk, name))
		if (step(run, &walk, name, create) < 0)
			return -1;
	if (errno)
		return -1;
	if (created)
		*created = walk.created;
	return open_in(root_of(run), walk.done[0] ? walk.done : "/", O_PATH, NO_SYMLINKS);
}

int open_parent(struct run *run, const char *path, const char **name)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;

	*name = slash ? slash + 1 : path;
	if (**name == 0 || strcmp(*name, ".") == 0 || strcmp(*name, "..") == 0 ||
	    length >= PATH_MAX) {
		errno = EINVAL;
		return -1;
	}
	memcpy(folder, path, length);
	strcpy(folder + length, length ? "" : "/");
	return open_target(run, folder, CREATE_DIRECTORY, NULL);
}

int verify(int fd, int64_t what, int64_t major, int64_t minor)
{
	enum { ANY, CHAR_DEVICE, IS_PROCFS, IS_CGROUP, IS_NSFS, IS_DIRECTORY };
	struct stat status;
	struct statfs fs;
	bool good = false;

	if (fstat(fd, &status) < 0 || fstatfs(fd, &fs) < 0)
		return -1;
	switch (what) {
	case ANY:
		good = true;
		break;
	case CHAR_DEVICE:
		good = S_ISCHR(status.st_mode) &&
		       status.st_rdev == makedev((unsigned)major, (unsigned)minor);
		break;
	case IS_PROCFS:
		good = fs.f_type == PROCFS;
		break;
	case IS_CGROUP:
		good = fs.f_type == CGROUPFS || fs.f_type == CGROUP2FS;
		break;
	case IS_NSFS:
		good = fs.f_type == NSFS;
		break;
	case IS_DIRECTORY:
		good = S_ISDIR(status.st_mode);
		break;
	}
	if (!good)
		errno = EBADF;
	return good ? 0 : -1;
}

int closing(int fd, int result)
{
	int saved = errno;

	close(fd);
	errno = saved;
	return result;
}

int write_all(int fd, const void *data, size_t size)
{
	const char *next = data;
	ssize_t written;

	while (size > 0) {
		written = write(fd, next, size);
		if (written < 0 && errno != EINTR)
			return -1;
		if (written > 0) {
			next += written;
			size -= (size_t)written;
		}
	}
	return 0;
}
