/* The last operations: streams, PID 1 as init, exec. */
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "operations.h"
#include "syscalls.h"

/* Makes the container's pipes and hands our ends to the supervisor.  Made here, and not by
 * the supervisor, they belong to the container's user namespace, else nobody in there could
 * reopen /dev/stdout. */
OPERATION(stdio)
{
	int pipes[3][2], ours[3], stream;

	if (setsid() < 0)
		return fail(run, "setsid", NULL);
	for (stream = 0; stream < 3; stream++) {
		int theirs = stream == 0 ? 0 : 1;

		if (pipe2(pipes[stream], O_CLOEXEC) < 0)
			return fail(run, "pipe2", NULL);
		ours[stream] = pipes[stream][!theirs];
		if (fchown(ours[stream], (uid_t)fields[0].number, (gid_t)fields[1].number) < 0)
			return fail(run, "chown", NULL);
		if (dup2(pipes[stream][theirs], stream) < 0)
			return fail(run, "dup2", NULL);
		close(pipes[stream][theirs]);
	}
	if (send_descriptors(run->channel, STDIO, ours) < 0)
		return fail(run, "sendmsg", NULL);
	for (stream = 0; stream < 3; stream++)
		close(ours[stream]);
	return 0;
}

OPERATION(close_descriptors)
{
	(void)run;
	(void)fields;
	return sys_close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
}

/* -- init ------------------------------------------------------------------------------ */

static bool forwarded(int number)
{
	switch (number) {
	case SIGCHLD:
	case SIGTTIN: /* about PID 1 itself */
	case SIGTTOU:
	case SIGSEGV: /* raised by a fault of its own */
	case SIGBUS:
	case SIGFPE:
	case SIGILL:
	case SIGTRAP:
	case SIGSYS:
	case SIGABRT:
		return false;
	}
	return true;
}

/* Forwards signals to the payload and reaps everybody; ends with the payload's status. */
static _Noreturn void be_init(pid_t payload, const sigset_t *all)
{
	int number, status;
	pid_t pid;

	for (;;) {
		number = sigwaitinfo(all, NULL);
		if (number > 0 && forwarded(number))
			kill(payload, number);
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == payload)
				_exit(WIFEXITED(status) ? WEXITSTATUS(status)
							: 128 + WTERMSIG(status));
		if (pid < 0 && errno == ECHILD)
			_exit(255);
	}
}

/* Waits until the payload has executed its command or ended, which closes `pipe`.  Which of
 * the two tells setpgid(2): EACCES for a child that "had already performed an execve". */
static void await_exec(const struct run *run, pid_t payload, int pipe)
{
	char nothing;

	while (read(pipe, &nothing, 1) < 0 && errno == EINTR)
		;
	if (setpgid(payload, payload) < 0 && errno == EACCES)
		send_message(run->channel, EXECUTED, 0, 0, NULL);
}

OPERATION(init)
{
	sigset_t all, before;
	int pipe[2];
	pid_t payload;

	(void)fields;
	sigfillset(&all);
	if (pipe2(pipe, O_CLOEXEC) < 0)
		return fail(run, "pipe2", NULL);
	sigprocmask(SIG_SETMASK, &all, &before);
	prctl(PR_SET_NAME, "ctr-init", 0, 0, 0);
	payload = fork();
	if (payload < 0)
		return fail(run, "fork", NULL);
	if (payload == 0) {
		close(pipe[0]);
		sigprocmask(SIG_SETMASK, &before, NULL);
		return guard_process();
	}
	close(pipe[1]);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* where PID 1 is not really PID 1: --pid host */
	await_exec(run, payload, pipe[0]);
	sys_close_range(0, ~0U, 0);
	munmap((void *)(uintptr_t)run->program->data, run->program->size);
	be_init(payload, &all);
}

/* -- exec ------------------------------------------------------------------------------ */

/* An array of pointers for execve; it lives until the exec. */
static char **pointers(const struct field *list)
{
	const uint8_t *cursor = list->data;
	size_t size = (list->size + 1) * sizeof(char *);
	char **array = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t i;

	if (array == MAP_FAILED)
		return NULL;
	for (i = 0; i < list->size; i++)
		array[i] = (char *)(uintptr_t)next_text(&cursor);
	return array;
}

static bool is_folder(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* As execvp(3) searches: a file that may not be executed is remembered, a folder is not. */
static void search(const char *path, char **argv, char **environment)
{
	char file[PATH_MAX];
	bool denied = false;
	size_t length;

	for (;; path += length + 1) {
		length = strcspn(path, ":");
		if (length + strlen(argv[0]) + 2 <= sizeof(file)) {
			memcpy(file, path, length);
			file[length] = 0;
			append(file, sizeof(file), length ? "/" : "");
			append(file, sizeof(file), argv[0]);
			execve(file, argv, environment);
			if (errno == EACCES)
				denied |= !is_folder(file);
			else if (errno != ENOENT && errno != ENOTDIR)
				return;
		}
		if (path[length] == 0)
			break;
	}
	errno = denied ? EACCES : ENOENT;
}

OPERATION(exec)
{
	char **argv = pointers(&fields[0]);
	char **environment = pointers(&fields[1]);

	if (!argv || !environment)
		return fail(run, "mmap", NULL);
	if (!argv[0] || !*argv[0])
		return fail_with(run, ENOENT, "the command is empty", NULL);
	if (strchr(argv[0], '/'))
		execve(argv[0], argv, environment);
	else
		search((const char *)fields[2].data, argv, environment);
	return fail(run, argv[0], NULL);
}
