/* Operations that give privileges up. */
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>

#include "operations.h"
#include "syscalls.h"

#define MAX_GROUPS 1024
#define LAST_POSSIBLE_CAPABILITY 63

OPERATION(no_new_privileges)
{
	(void)run;
	(void)fields;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

OPERATION(seccomp)
{
	size_t count = fields[0].size / sizeof(struct sock_filter);
	struct sock_fprog filter = {
		.len = (unsigned short)count,
		.filter = (struct sock_filter *)(uintptr_t)fields[0].data,
	};

	if (count == 0 || count > BPF_MAXINSNS || fields[0].size % sizeof(struct sock_filter))
		return fail_with(run, EINVAL, "the filter's size is wrong", NULL);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, fields[1].number, &filter) < 0 ? -1 : 0;
}

OPERATION(bounding_set)
{
	int capability;

	(void)run;
	for (capability = 0; capability <= LAST_POSSIBLE_CAPABILITY; capability++) {
		if (fields[0].number >> capability & 1)
			continue;
		if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1 &&
		    prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
			return -1;
	}
	return 0;
}

/* A user namespace made without privileges may deny setgroups(2) for good. */
static bool groups_denied(void)
{
	char text[8];
	int fd = open("/proc/self/setgroups", O_RDONLY | O_CLOEXEC);
	ssize_t size;

	if (fd < 0)
		return false;
	size = verify(fd, 2 /* Verify.PROCFS */, 0, 0) < 0 ? 0 : read(fd, text, sizeof(text));
	close(fd);
	return size >= 4 && memcmp(text, "deny", 4) == 0;
}

static int set_groups(struct run *run, const struct field *groups)
{
	const uint8_t *cursor = groups->data;
	gid_t list[MAX_GROUPS];
	uint32_t i;

	if (groups->size > MAX_GROUPS)
		return fail_with(run, EINVAL, "too many groups", NULL);
	for (i = 0; i < groups->size; i++) {
		int64_t gid = next_number(&cursor);

		if (gid < 0 || gid >= UINT32_MAX)
			return fail_with(run, EINVAL, "gid out of range", NULL);
		list[i] = (gid_t)gid;
	}
	if (setgroups(groups->size, list) == 0)
		return 0;
	if (errno == EPERM && groups->size == 0 && groups_denied())
		return 0;
	errno = EPERM;
	return fail(run, "setgroups", NULL);
}

OPERATION(identity)
{
	int64_t uid = fields[0].number, gid = fields[1].number;

	/* -1 would leave the id as it is: root's. */
	if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
		return fail_with(run, EINVAL, "uid or gid out of range", NULL);
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return fail(run, "keep capabilities", NULL);
	if (set_groups(run, &fields[2]) < 0)
		return -1;
	if (setresgid((gid_t)gid, (gid_t)gid, (gid_t)gid) < 0)
		return fail(run, "setresgid", NULL);
	if (setresuid((uid_t)uid, (uid_t)uid, (uid_t)uid) < 0)
		return fail(run, "setresuid", NULL);
	return guard_process();
}

static uint64_t get_ambient(void)
{
	uint64_t set = 0;
	int capability;

	for (capability = 0; capability <= LAST_POSSIBLE_CAPABILITY; capability++)
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability, 0, 0) == 1)
			set |= 1ULL << capability;
	return set;
}

static int raise_ambient(uint64_t set)
{
	int capability;

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -1;
	for (capability = 0; capability <= LAST_POSSIBLE_CAPABILITY; capability++)
		if ((set >> capability & 1) &&
		    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
			return -1;
	return 0;
}

OPERATION(capabilities)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct want[2], got[2];
	int half;

	for (half = 0; half < 2; half++) {
		want[half].effective = (uint32_t)(fields[0].number >> 32 * half);
		want[half].permitted = (uint32_t)(fields[1].number >> 32 * half);
		want[half].inheritable = (uint32_t)(fields[2].number >> 32 * half);
	}
	if (syscall(SYS_capset, &header, want) < 0)
		return fail(run, "capset", NULL);
	if (raise_ambient((uint64_t)fields[3].number) < 0)
		return fail(run, "raise ambient capabilities", NULL);
	if (syscall(SYS_capget, &header, got) < 0)
		return fail(run, "capget", NULL);
	if (memcmp(want, got, sizeof(want)) != 0 || get_ambient() != (uint64_t)fields[3].number)
		return fail_with(run, EPERM, "the sets read back differ", NULL);
	return guard_process();
}
