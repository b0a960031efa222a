/* The parent and the child: they run the program, operation by operation. */
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "launcher.h"
#include "syscalls.h"

int guard_process(void)
{
	/* A change of credentials clears the first and may set the second (prctl(2)). */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* An ignored signal would stay ignored in the container.  The system call, because a C
 * library keeps two signals for itself, which posix_spawn(3) ignores. */
static void reset_signals(void)
{
	static const unsigned long by_default[8]; /* struct sigaction: SIG_DFL, no flags */
	sigset_t none;
	int number;

	for (number = 1; number < NSIG; number++)
		syscall(SYS_rt_sigaction, number, by_default, NULL, NSIG / 8);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

void await_go(const struct run *run)
{
	struct message message;

	if (receive_message(run->channel, &message, NULL) <= 0 || message.kind != GO)
		_exit(1);
}

int fail(struct run *run, const char *what, const char *object)
{
	int saved = errno;

	run->detail[0] = 0;
	append(run->detail, sizeof(run->detail), what);
	if (object && *object) {
		append(run->detail, sizeof(run->detail), " ");
		append(run->detail, sizeof(run->detail), object);
	}
	errno = saved;
	return -1;
}

int fail_with(struct run *run, int error, const char *what, const char *object)
{
	errno = error;
	return fail(run, what, object);
}

int slot_get(struct run *run, const struct field *field)
{
	int fd = run->slots[field->number];

	return fd >= 0 ? fd : fail_with(run, EBADF, "nothing is in the slot", NULL);
}

int slot_set(struct run *run, const struct field *field, int fd)
{
	int *slot = &run->slots[field->number];

	if (*slot >= 0)
		close(*slot);
	*slot = fd;
	return 0;
}

void report_failure(struct run *run)
{
	send_message(run->channel, FAILED, run->index, errno, run->detail);
	_exit(1);
}

/* Runs this side's part.  The child leaves by its Exec, the parent at the end. */
static _Noreturn void run_program(struct run *run)
{
	struct operation operation;
	struct field fields[MAX_FIELDS];

	for (; program_next(run->program, &run->offset, &operation); run->index++) {
		if (phase_side(operation.phase) != run->side)
			continue;
		if (run->program->flags & PROGRAM_TRACE)
			send_message(run->channel, TRACE, run->index, 0, NULL);
		run->detail[0] = 0;
		errno = EINVAL; /* for fields that stopped to be what they were when checked */
		if (!decode_fields(&operation, fields) || operation.type->run(run, fields) < 0)
			report_failure(run);
	}
	if (!run->synced)
		send_message(run->channel, PARTED, 0, 0, NULL);
	_exit(0);
}

/* A container can read the command line and, given CAP_SYS_PTRACE, the memory of a PID 1
 * that stays as its init: the cleaner and the engine's environment are not its business. */
static void hide_arguments(char **arguments)
{
	char *end = arguments[0] + strlen(arguments[0]) + 1;
	char **next;

	for (next = arguments + 1; *next; next++)
		end = *next + strlen(*next) + 1;
	for (next = environ; *next; next++)
		end = *next + strlen(*next) + 1;
	next = arguments + 1;
	if (*next)
		memset(*next, 0, (size_t)(end - *next));
}

pid_t launch(const struct program *program, int channel[2], char **arguments)
{
	struct run run = {
		.program = program,
		.side = PARENT,
		.root = -1,
		.proc = -1,
		.cover = -1,
	};
	pid_t supervisor = getpid();
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	if (guard_process() < 0 || getppid() != supervisor)
		_exit(1);
	reset_signals();
	hide_arguments(arguments);
	/* Of the supervisor's descriptors only this end of the channel and 0, 1, 2 stay. */
	dup2(channel[1], CONTROL_FD);
	sys_close_range(CONTROL_FD + 1, ~0U, 0);
	fcntl(CONTROL_FD, F_SETFD, FD_CLOEXEC);
	run.channel = CONTROL_FD;
	memset(run.slots, -1, sizeof(run.slots));
	run_program(&run);
}
