/* Operations on mounts.  A mount is made detached, as a descriptor, then moved to its place. */
#include <string.h>
#include <sys/stat.h>

#include "operations.h"
#include "syscalls.h"

/* The kernel's own words, where the file system context has some ("e tmpfs: Bad value"). */
static int fail_context(struct run *run, int context, const char *what, const char *object)
{
	char line[MAX_TEXT];
	int saved = errno;
	ssize_t size;

	fail(run, what, object);
	while ((size = read(context, line, sizeof(line) - 1)) > 0) {
		line[size] = 0;
		line[strcspn(line, "\n")] = 0;
		if (line[0] == 'e' && line[1] == ' ') {
			fail(run, line + 2, NULL);
			break;
		}
	}
	errno = saved;
	return -1;
}

static int configure(int context, unsigned command, const char *key, const char *value, int aux)
{
	return (int)syscall(SYS_fsconfig, context, command, key, value, aux);
}

/* Splits `option` at its first `=` into `key`; returns the value or NULL. */
static const char *split(const char *option, char *key, size_t size)
{
	const char *value = strchr(option, '=');
	size_t length = value ? (size_t)(value - option) : strlen(option);

	key[0] = 0;
	if (length < size) {
		memcpy(key, option, length);
		key[length] = 0;
	}
	return value ? value + 1 : NULL;
}

static int set_options(struct run *run, int context, const struct field *options)
{
	const uint8_t *cursor = options->data;
	const char *option, *value;
	char key[MAX_TEXT];
	uint32_t i;

	for (i = 0; i < options->size; i++) {
		option = next_text(&cursor);
		value = split(option, key, sizeof(key));
		if (configure(context, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, value,
			      0) < 0)
			return fail_context(run, context, "fsconfig", option);
	}
	return 0;
}

static int set_descriptors(struct run *run, int context, const struct field *options)
{
	const uint8_t *cursor = options->data;
	struct field slot = {0};
	const char *option, *digit;
	char key[MAX_TEXT];
	uint32_t i;
	int fd;

	for (i = 0; i < options->size; i++) {
		option = next_text(&cursor);
		digit = split(option, key, sizeof(key));
		slot.number = digit && *digit ? 0 : MAX_SLOTS;
		for (; digit && *digit && slot.number < MAX_SLOTS; digit++)
			slot.number = *digit >= '0' && *digit <= '9'
					      ? slot.number * 10 + (*digit - '0')
					      : MAX_SLOTS;
		if (slot.number >= MAX_SLOTS)
			return fail_with(run, EINVAL, "descriptor option", option);
		fd = slot_get(run, &slot);
		if (fd < 0)
			return -1;
		if (configure(context, FSCONFIG_SET_FD, key, NULL, fd) < 0)
			return fail_context(run, context, "fsconfig", option);
	}
	return 0;
}

/* A detached mount of a new instance of `type`; `source`, `options`, `descriptors` or NULL. */
static int make_mount(struct run *run, const char *type, const char *source,
		      const struct field *descriptors, const struct field *options,
		      int64_t attributes)
{
	int mount, context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);

	if (context < 0)
		return fail(run, "fsopen", type);
	if (source && *source && configure(context, FSCONFIG_SET_STRING, "source", source, 0) < 0)
		return closing(context, fail_context(run, context, "fsconfig source", source));
	if ((descriptors && set_descriptors(run, context, descriptors) < 0) ||
	    (options && set_options(run, context, options) < 0))
		return closing(context, -1);
	if (configure(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return closing(context, fail_context(run, context, "fsconfig create", NULL));
	mount = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, (unsigned)attributes);
	if (mount < 0)
		return closing(context, fail_context(run, context, "fsmount", NULL));
	return closing(context, mount);
}

static int clone_mount(int fd, unsigned flags)
{
	return sys_open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | flags);
}

OPERATION(open_tree)
{
	const char *path = (const char *)fields[1].data;
	unsigned recursive = fields[2].number ? AT_RECURSIVE : 0;
	int source = open_path(run, path, O_PATH);
	int mount;

	if (source < 0)
		return fail(run, "open", path);
	mount = clone_mount(source, recursive);
	if (mount < 0)
		return closing(source, fail(run, "open_tree", NULL));
	close(source);
	return slot_set(run, fields, mount);
}

OPERATION(new_mount)
{
	int mount = make_mount(run, (const char *)fields[1].data, (const char *)fields[2].data,
			       &fields[5], &fields[3], fields[4].number);

	return mount < 0 ? -1 : slot_set(run, fields, mount);
}

/* The first StageMount gives the parent a mount namespace of its own, which the host does
 * not see. */
static int stage(struct run *run)
{
	if (run->staged)
		return 0;
	if (syscall(SYS_unshare, NEW_MOUNT_NAMESPACE) < 0)
		return fail(run, "unshare", NULL);
	if (sys_mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return fail(run, "make / private", NULL);
	run->staged = true;
	return 0;
}

OPERATION(stage_mount)
{
	const char *type = (const char *)fields[1].data;
	const char *directory = (const char *)fields[2].data;
	struct mount_attr64 attr = {.attr_set = (uint64_t)fields[4].number};
	int mount;

	if (stage(run) < 0)
		return -1;
	if (chdir(directory) < 0)
		return fail(run, "chdir", directory);
	if (sys_mount(type, "merged", type, 0, (const char *)fields[3].data) < 0)
		return fail(run, "mount", NULL);
	mount = sys_open_tree(AT_FDCWD, "merged", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (mount < 0)
		return fail(run, "open_tree", NULL);
	if (attr.attr_set && sys_mount_setattr(mount, 0, &attr) < 0)
		return closing(mount, fail(run, "mount_setattr", NULL));
	/* Else the container would begin with a copy of it. */
	if (sys_umount("merged", MNT_DETACH) < 0 || chdir("/") < 0)
		return closing(mount, fail(run, "umount", NULL));
	return slot_set(run, fields, mount);
}

OPERATION(mount_attr)
{
	struct mount_attr64 attr = {
		.attr_set = (uint64_t)fields[1].number,
		.attr_clr = (uint64_t)fields[2].number,
		.propagation = (uint64_t)fields[3].number,
	};
	int userns, mount = slot_get(run, fields);

	if (mount < 0)
		return -1;
	if (fields[4].number != NO_SLOT) {
		userns = slot_get(run, &fields[4]);
		if (userns < 0)
			return -1;
		attr.userns_fd = (uint64_t)userns;
		attr.attr_set |= MOUNT_ATTR_IDMAP;
	}
	return sys_mount_setattr(mount, fields[5].number ? AT_RECURSIVE : 0, &attr);
}

OPERATION(propagation)
{
	(void)run;
	return sys_mount(NULL, "/", NULL, (unsigned long)fields[0].number, NULL);
}

/* The mount goes on top of "/".  This process's root stays the old one below it: a lookup
 * starts at the root's dentry and does not cross what is mounted there.  So host paths still
 * mean the host's files, and the container's are reached through the descriptor alone. */
OPERATION(attach_root)
{
	int mount = slot_get(run, fields);
	int target;

	if (mount < 0)
		return -1;
	target = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (target < 0 || sys_move_mount(mount, target) < 0)
		return -1;
	close(target);
	run->root = mount;
	run->slots[fields[0].number] = -1; /* it is the root's now */
	return 0;
}

/* Moves `mount` to `target`, made as `create` says. */
static int place(struct run *run, int mount, const char *target, int64_t create)
{
	int fd = open_target(run, target, (enum create)create, NULL);

	if (fd < 0)
		return create == CREATE_PLAIN_DIRECTORY && errno == ELOOP
			       ? fail_with(run, ELOOP, "a link leads to or stands at", target)
			       : fail(run, "open", target);
	/* There it would hide what masks are for (CVE-2019-16884), whatever name it came by. */
	if (verify(fd, 2 /* Verify.PROCFS */, 0, 0) == 0)
		return closing(fd, fail_with(run, EPERM, "mounts on procfs are refused:", target));
	if (sys_move_mount(mount, fd) < 0)
		return closing(fd, fail(run, "move_mount", target));
	return closing(fd, 0);
}

OPERATION(mount_at)
{
	const char *type = (const char *)fields[0].data;
	int mount = make_mount(run, type, NULL, NULL, &fields[2], fields[3].number);

	if (mount < 0)
		return -1;
	if (place(run, mount, (const char *)fields[1].data, fields[4].number) < 0)
		return closing(mount, -1);
	/* Sysctls are written through a clone, which read-only paths do not cover. */
	if (strcmp(type, "proc") == 0 && run->proc < 0)
		run->proc = clone_mount(mount, 0);
	return closing(mount, 0);
}

OPERATION(move_mount)
{
	int mount = slot_get(run, fields);

	if (mount < 0)
		return -1;
	return place(run, mount, (const char *)fields[1].data, fields[2].number);
}

/* An empty read-only tmpfs, detached.  The first is kept, further ones are its clones. */
static int make_cover(struct run *run)
{
	int mount;

	if (run->cover < 0) {
		mount = make_mount(run, "tmpfs", NULL, NULL, NULL,
				   MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
					   MOUNT_ATTR_NOEXEC);
		/* A clone needs a mount that is in our namespace, so this one must be used. */
		run->cover = mount;
		return mount;
	}
	return clone_mount(run->cover, 0);
}

/* A read-only mount of the host's /dev/null: root in the container owns that file, and could
 * change the mode of it for the whole host (a device takes writes all the same). */
static int cover_file(int null)
{
	struct mount_attr64 attr = {.attr_set = MOUNT_ATTR_RDONLY};
	int mount = clone_mount(null, 0);

	if (mount >= 0 && sys_mount_setattr(mount, 0, &attr) < 0)
		return closing(mount, -1);
	return mount;
}

OPERATION(mask_path)
{
	const char *path = (const char *)fields[0].data;
	int cover, null, target = open_beneath(run, path, O_PATH);
	struct stat status;

	if (target < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : fail(run, "open", path);
	if (fstat(target, &status) < 0)
		return closing(target, -1);
	if (S_ISDIR(status.st_mode)) {
		cover = make_cover(run);
	} else {
		null = slot_get(run, &fields[1]);
		cover = null < 0 ? -1 : cover_file(null);
	}
	if (cover < 0)
		return closing(target, run->detail[0] ? -1 : fail(run, "cover", path));
	if (sys_move_mount(cover, target) < 0)
		return closing(target, fail(run, "move_mount", path));
	if (cover != run->cover)
		close(cover);
	return closing(target, 0);
}

OPERATION(readonly_path)
{
	const char *path = (const char *)fields[0].data;
	struct mount_attr64 attr = {.attr_set = MOUNT_ATTR_RDONLY};
	int mount, target = open_beneath(run, path, O_PATH);

	if (target < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : fail(run, "open", path);
	mount = clone_mount(target, AT_RECURSIVE);
	if (mount < 0)
		return closing(target, fail(run, "open_tree", NULL));
	if (sys_mount_setattr(mount, AT_RECURSIVE, &attr) < 0)
		fail(run, "mount_setattr", NULL);
	else if (sys_move_mount(mount, target) < 0)
		fail(run, "move_mount", NULL);
	else
		return closing(mount, closing(target, 0));
	return closing(mount, closing(target, -1));
}

OPERATION(root_attr)
{
	struct mount_attr64 attr = {.attr_set = (uint64_t)fields[0].number};

	return run->root < 0 ? fail_with(run, EBADF, "no root is attached", NULL)
			     : sys_mount_setattr(run->root, 0, &attr);
}

/* pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one, and
 * umount resolves "." up to it.  That the new root was mounted over "/" itself makes no
 * difference, also in a user namespace: the kernel hands the old root's lock
 * (MNT_LOCKED) on to the new one. */
OPERATION(pivot_root)
{
	(void)fields;
	if (run->root < 0)
		return fail_with(run, EBADF, "no root is attached", NULL);
	if (fchdir(run->root) < 0 || sys_pivot_root(".", ".") < 0)
		return fail(run, "pivot_root", NULL);
	if (sys_umount(".", MNT_DETACH) < 0)
		return fail(run, "umount", NULL);
	run->pivoted = true;
	return chdir("/");
}
