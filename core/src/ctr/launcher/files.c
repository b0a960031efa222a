/* Operations on files, folders and nodes. */
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "operations.h"
#include "syscalls.h"

OPERATION(open_path)
{
	const char *path = (const char *)fields[1].data;
	int fd = open_path(run, path, (int)fields[2].number);

	if (fd < 0)
		return -1;
	if (verify(fd, fields[3].number, fields[4].number, fields[5].number) < 0)
		return closing(fd, fail(run, "it is not what it should be:", path));
	return slot_set(run, fields, fd);
}

/* One write(2): files of procfs and cgroupfs take a value whole or not at all. */
static int write_once(int fd, const void *data, size_t size)
{
	ssize_t written = write(fd, data, size);

	if (written >= 0 && (size_t)written != size) {
		errno = EIO;
		return -1;
	}
	return written < 0 ? -1 : 0;
}

OPERATION(write_file)
{
	const char *path = (const char *)fields[0].data;
	int fd = open_path(run, path, O_WRONLY);

	if (fd < 0)
		return fail(run, "open", path);
	if (verify(fd, fields[2].number, 0, 0) < 0)
		return closing(fd, fail(run, "it is not what it should be:", path));
	return closing(fd, write_once(fd, fields[1].data, fields[1].size));
}

/* What a chown must not be given: -1 leaves the owner as it is. */
static int check_owner(struct run *run, const struct field *uid, const struct field *gid)
{
	if (uid->number < 0 || uid->number >= UINT32_MAX || gid->number < 0 ||
	    gid->number >= UINT32_MAX)
		return fail_with(run, EINVAL, "uid or gid out of range", NULL);
	return 0;
}

OPERATION(make_directory)
{
	const char *name, *path = (const char *)fields[0].data;
	int made, saved, parent, there;
	mode_t mask;

	if (check_owner(run, &fields[2], &fields[3]) < 0)
		return -1;
	there = open_beneath(run, path, O_PATH | O_DIRECTORY);
	if (there >= 0)
		return closing(there, 0);
	parent = open_parent(run, path, &name);
	if (parent < 0)
		return fail(run, "open", path);
	mask = umask(0);
	made = mkdirat(parent, name, (mode_t)fields[1].number);
	saved = errno;
	umask(mask);
	errno = saved;
	if (made == 0)
		made = fchownat(parent, name, (uid_t)fields[2].number, (gid_t)fields[3].number,
				AT_SYMLINK_NOFOLLOW);
	return closing(parent, made);
}

OPERATION(make_node)
{
	dev_t device = makedev((unsigned)fields[2].number, (unsigned)fields[3].number);
	const char *name, *path = (const char *)fields[0].data;
	int made, saved, parent;
	mode_t mask;

	if (check_owner(run, &fields[4], &fields[5]) < 0)
		return -1;
	parent = open_parent(run, path, &name);
	if (parent < 0)
		return fail(run, "open", path);
	mask = umask(0);
	made = mknodat(parent, name, (mode_t)fields[1].number, device);
	saved = errno;
	umask(mask);
	errno = saved;
	if (made == 0)
		made = fchownat(parent, name, (uid_t)fields[4].number, (gid_t)fields[5].number,
				AT_SYMLINK_NOFOLLOW);
	return closing(parent, made);
}

OPERATION(symlink)
{
	const char *name, *path = (const char *)fields[0].data;
	int parent = open_parent(run, path, &name);

	if (parent < 0)
		return fail(run, "open", path);
	return closing(parent, symlinkat((const char *)fields[1].data, parent, name));
}

/* The folder /proc/sys, of the procfs that MountAt made; one that was bound from the host
 * must verify when the file is opened. */
static int open_proc_sys(struct run *run)
{
	int proc = run->proc;
	int folder;

	if (proc >= 0)
		return openat2(proc, "sys", O_PATH | O_DIRECTORY, BENEATH | NO_SYMLINKS);
	proc = open_beneath(run, "/proc", O_PATH | O_DIRECTORY);
	if (proc < 0)
		return -1;
	folder = openat2(proc, "sys", O_PATH | O_DIRECTORY, BENEATH | NO_SYMLINKS);
	return closing(proc, folder);
}

OPERATION(sysctl)
{
	int fd, folder = open_proc_sys(run);

	if (folder < 0)
		return fail(run, "open /proc/sys", NULL);
	fd = openat2(folder, (const char *)fields[0].data, O_WRONLY, BENEATH | NO_SYMLINKS);
	closing(folder, 0);
	if (fd < 0)
		return -1;
	if (verify(fd, 2 /* Verify.PROCFS */, 0, 0) < 0)
		return closing(fd, fail(run, "it is not procfs", NULL));
	return closing(fd, write_once(fd, fields[1].data, fields[1].size));
}

OPERATION(chdir)
{
	const char *path = (const char *)fields[0].data;
	char where[4096];
	bool created;
	int fd;

	if (check_owner(run, &fields[2], &fields[3]) < 0)
		return -1;
	fd = open_target(run, path, fields[1].number ? CREATE_DIRECTORY : CREATE_NOTHING,
			 &created);
	if (fd < 0)
		return -1;
	if (created && fchownat(fd, "", (uid_t)fields[2].number, (gid_t)fields[3].number,
				AT_EMPTY_PATH) < 0)
		return closing(fd, fail(run, "chown", NULL));
	if (fchdir(fd) < 0)
		return closing(fd, -1);
	close(fd);
	/* The system call, not the library's: outside of the root it says "(unreachable)/". */
	if (syscall(SYS_getcwd, where, sizeof(where)) < 0)
		return -1;
	return where[0] == '/' ? 0 : fail_with(run, ENOENT, "outside of the root", NULL);
}
